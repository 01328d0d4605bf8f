"""Figures of a classifier as functions of arrays: scores by class, calibration, how sure an accuracy is."""

from typing import NamedTuple

import numpy as np

BINS = 15
RESAMPLES = 10_000


class ClassScores(NamedTuple):
    """How well one class is told from the others.

    Attributes:
        images: how many there are of it.
        precision: of those taken for it, the share that are of it, in 0–1; 0 where none was taken for it.
        recall: of those that are of it, the share taken for it, in 0–1: the class's top-1 accuracy.
        f1: the harmonic mean of both, in 0–1; 0 where both are.
    """

    images: int
    precision: float
    recall: float
    f1: float


def class_scores(confusion: np.ndarray) -> list[ClassScores]:
    """The scores of each class. Of a class without images the recall is 0.

    Args:
        confusion: counts `(true class, predicted class)`.
    """
    right, of_it, taken = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = right / np.maximum(taken, 1), right / np.maximum(of_it, 1)
    f1 = 2 * right / np.maximum(taken + of_it, 1)
    return [ClassScores(*row) for row in zip(of_it.tolist(), precision.tolist(), recall.tolist(), f1.tolist())]


class CalibrationBin(NamedTuple):
    """The images whose predicted class has a probability in one range.

    Attributes:
        images: how many there are.
        probability: their mean probability, right: the share that is right, both in 0–1, and 0 of no images.
    """

    images: int
    probability: float
    right: float


def calibration_bins(probabilities: np.ndarray, right: np.ndarray) -> list[CalibrationBin]:
    """How sure a model is and how often it is right, in 15 bins of equal width, each with its upper edge.

    Source: Guo et al. 2017, arXiv 1706.04599, section 2.

    Args:
        probabilities: of each image's predicted class, `(images,)`. right: whether it is its class, `(images,)`.
    """
    bins = np.searchsorted(np.arange(1, BINS) / BINS, probabilities)
    counts, sure, share = (np.bincount(bins, weights, BINS) for weights in (None, probabilities, right))
    filled = np.maximum(counts, 1)
    return [
        CalibrationBin(*row) for row in zip(counts.tolist(), (sure / filled).tolist(), (share / filled).tolist())
    ]


def calibration_error(probabilities: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error, in 0–1: how far probabilities are from the share that is right.

    The mean over the images of |share that is right − mean probability| of the bin that each falls in (Guo et al.
    2017, equation 3).

    Args:
        probabilities, right: as for `calibration_bins`.
    """
    bins = np.array(calibration_bins(probabilities, right))
    return float(np.average(np.abs(bins[:, 2] - bins[:, 1]), weights=bins[:, 0]))


def accuracy_interval(right: int, count: int) -> tuple[float, float]:
    """A 95 % confidence interval of an accuracy: its percentile bootstrap of 10,000 resamples, with a fixed seed.

    To draw `count` images with replacement, of which a share p is right, and to count those that are right is to
    draw from Binomial(count, p): no image need be drawn. Where all images are right, or none, every resample is
    the same, which is no certainty: there it is the exact interval (Clopper and Pearson 1934), from 83 % for 20
    images that are all right.

    Args:
        right: how many images are right. count: of how many, at least 1.
    """
    if right in (0, count):
        miss = 1 - 0.025 ** (1 / count)
        return (0.0, miss) if right == 0 else (1 - miss, 1.0)
    shares = np.random.default_rng(0).binomial(count, right / count, RESAMPLES) / count
    low, high = np.percentile(shares, (2.5, 97.5))
    return float(low), float(high)
