"""MixUp (arXiv 1710.09412) and CutMix (arXiv 1905.04899) as timm does them, as a keras-cv layer."""

import tensorflow as tf

from keras_convmixer.data.augment.base import SeededAugmentation, check_probability, paste
from keras_convmixer.errors import UserError


class MixUpCutMix(SeededAugmentation):
    """Mixes each image and label of a batch with those of the batch reversed, by MixUp or by CutMix.

    One of the two is drawn for a batch, and one λ ~ Beta(alpha, alpha). keras-cv's own layers draw λ for each
    image and shuffle the partners. A batch's draws come from the seeds of its first image.

    Args:
        mixup_alpha, cutmix_alpha: 0 leaves that one out.
        switch_probability: of CutMix, where there are both.
        salt: see `SeededAugmentation`.

    Raises:
        ValueError: an argument is out of range; when called, if there is no batch or it has no labels.
    """

    def __init__(self, mixup_alpha=0.5, cutmix_alpha=0.5, switch_probability=0.5, **kwargs):
        super().__init__(**kwargs)
        self.mixup_alpha, self.cutmix_alpha = mixup_alpha, cutmix_alpha
        self.switch_probability = check_probability("switch_probability", switch_probability)
        if min(mixup_alpha, cutmix_alpha) < 0 or max(mixup_alpha, cutmix_alpha) == 0:
            raise UserError(f"the alphas must be at least 0 and not both 0, got {mixup_alpha} and {cutmix_alpha}")
        # Where one alpha is 0 there is nothing to switch between.
        self._cutmix_probability = switch_probability if mixup_alpha and cutmix_alpha else float(cutmix_alpha > 0)

    def augment_batch(self, inputs, then=lambda image, seeds: image):
        """What calling the layer on a batch does.

        Args:
            inputs: see `SeededAugmentation`; a batch with labels, and with "weights" `(batch,)` or without.
            then: what is done to each mixed image `(height, width, 3)` with its seeds, while it is at hand.
        """
        if "seeds" not in inputs or "labels" not in inputs:
            raise ValueError(
                f'MixUpCutMix takes a dictionary with "images", "labels" and "seeds", got {list(inputs)}'
            )
        images, seeds = inputs["images"], inputs["seeds"][0]
        cut = self.uniform(seeds, "switch") < self._cutmix_probability
        last = tf.shape(images)[0] - 1

        def mixed_by(draw):
            mix, lam = draw(tf.shape(images)[1:3], seeds)

            def one(i):
                return then(tf.ensure_shape(mix(images[i], images[last - i]), images.shape[1:]), inputs["seeds"][i])

            # One after the other, for two images stay in the processor's cache where two batches do not.
            mixed = tf.map_fn(
                one,
                tf.range(last + 1),
                parallel_iterations=1,
                fn_output_signature=tf.TensorSpec(images.shape[1:]),
            )
            return mixed, lam

        mixed, lam = tf.cond(cut, lambda: mixed_by(self._cutmix), lambda: mixed_by(self._mixup))
        # An image's weight is its classes', so it is mixed as they are.
        also = {name: mix_labels(inputs[name], lam) for name in ("labels", "weights") if name in inputs}
        return inputs | also | {"images": tf.ensure_shape(mixed, images.shape)}

    def _batch_augment(self, inputs):
        return self.augment_batch(inputs)

    def _augment(self, inputs):
        raise ValueError("MixUpCutMix mixes the images of a batch: call it on a batch, not on a single image")

    def _mixup(self, _, seeds):
        """What to do to an image and its partner, and λ."""
        lam = tf.cast(self.beta(seeds, "mixup", self.mixup_alpha), tf.float32)
        return lambda image, partner: image * lam + partner * (1.0 - lam), lam

    def _cutmix(self, size, seeds):
        centre = self.uniform(seeds, "centre", (2,)) * tf.cast(size, tf.float32)
        centre = tf.minimum(tf.cast(centre, tf.int32), size - 1)
        (top, bottom, left, right), lam = cutmix_box(self.beta(seeds, "cutmix", self.cutmix_alpha), centre, size)

        def mix(image, partner):
            return paste(image, partner[top:bottom, left:right], top, left)

        return mix, tf.cast(lam, tf.float32)

    def get_config(self):
        names = ("mixup_alpha", "cutmix_alpha", "switch_probability")
        return super().get_config() | {name: getattr(self, name) for name in names}


def mix_labels(labels, lam):
    """λ times what a batch has in its first dimension plus 1 - λ times the same of the batch reversed."""
    return labels * lam + tf.reverse(labels, [0]) * (1.0 - lam)


def cutmix_box(lam, centre, size):
    """CutMix's rectangle.

    Args:
        lam: float64, the share of the image that is to stay. centre, size: int32 (y, x) and (height, width).

    Returns:
        (top, bottom, left, right), int32, cut at the image's border; and λ corrected to what is left of the image.
    """
    side = tf.cast(tf.sqrt(1.0 - lam) * tf.cast(size, tf.float64), tf.int32)
    begin = centre - side // 2
    begin, end = tf.maximum(begin, 0), tf.minimum(begin + side, size)
    pasted = tf.reduce_prod(tf.cast(end - begin, tf.float64))
    lam = 1.0 - pasted / tf.reduce_prod(tf.cast(size, tf.float64))
    return (begin[0], end[0], begin[1], end[1]), lam
