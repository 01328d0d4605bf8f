"""The SavedModel form, with a signature for batches of images and one for batches of image files."""

import tensorflow as tf

from keras_convmixer.data.decode import decode_jpeg_or_png, evaluation_crop


def save(model, preprocessing, path):
    """Writes a SavedModel that plain TensorFlow loads and serves, without this package or Keras.

    Its signatures, both giving what `model` gives:
        serving_default: `images`, float32 `(batch, height, width, 3)`, RGB in 0–255, of the preprocessing's size.
        serve_bytes: `image_bytes`, strings `(batch,)`, each a JPEG or PNG file's content. The evaluation
            preprocessing happens inside.

    Args:
        model: a `keras.Model` that gives a dictionary, see `prepare.prepared`.
        preprocessing: its `Preprocessing`. path: the folder to write.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    size = (*preprocessing.input_size, 3)

    @tf.function(input_signature=[tf.TensorSpec((None, *size), tf.float32, name="images")])
    def serving_default(images):
        return model(images, training=False)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def serve_bytes(image_bytes):
        def pixels(encoded):
            return evaluation_crop(decode_jpeg_or_png(encoded), preprocessing)

        images = tf.map_fn(pixels, image_bytes, fn_output_signature=tf.TensorSpec(size, tf.float32))
        return model(images, training=False)

    signatures = {"serving_default": serving_default, "serve_bytes": serve_bytes}
    tf.saved_model.save(module, path, signatures={k: v.get_concrete_function() for k, v in signatures.items()})
