"""Looking into a ConvMixer: its kernels, what it saw where, how far it sees. The arrays, and figures of them."""

from keras_convmixer.visualize.figure_files import Figures, save_figures
from keras_convmixer.visualize.figures import (
    plot_class_activation_maps,
    plot_depthwise_kernels,
    plot_effective_receptive_field,
    plot_feature_maps,
    plot_patch_embeddings,
)
from keras_convmixer.visualize.kernels import depthwise_kernels, patch_embeddings
from keras_convmixer.visualize.maps import class_activation_map, feature_maps, logits
from keras_convmixer.visualize.receptive_field import effective_receptive_field, receptive_field, side_holding

__all__ = [
    "Figures",
    "class_activation_map",
    "depthwise_kernels",
    "effective_receptive_field",
    "feature_maps",
    "logits",
    "patch_embeddings",
    "plot_class_activation_maps",
    "plot_depthwise_kernels",
    "plot_effective_receptive_field",
    "plot_feature_maps",
    "plot_patch_embeddings",
    "receptive_field",
    "save_figures",
    "side_holding",
]
