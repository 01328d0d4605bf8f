"""The files that the forms of a model are loaded from."""

import functools
import json

from keras_convmixer.benchmark.forms import OURS, not_available
from keras_convmixer.deployment import converter, onnx_file, saved_model, tflite
from keras_convmixer.deployment.fold import fold
from keras_convmixer.deployment.prepare import in_float32, prepared
from keras_convmixer.parts import architecture
from keras_convmixer.progress import Progress
from keras_convmixer.weights.state_dict import save_torch


def write(name, bundle, representative, folder, forms):
    """Fills a folder with what the forms are loaded from.

    Args:
        name: of the model. bundle: its `Bundle`. representative: images that set int8's ranges.
        folder: the folder. forms: names of `forms.FORMS`.

    Returns:
        `(written, errors)`: form → its file or folder, which several may share; and form → why it has none, of a
        peer's or the stock converter's alone.
    """
    makers = _makers(bundle, representative)
    written, errors, failed = {}, {}, {}
    with Progress(f"{name}: writing", len(forms)) as progress:
        for form in forms:
            progress.doing(f"{name}: writing {form}")
            file_name, make = makers[form]
            path = folder / file_name
            try:
                if not path.exists() and path not in failed:
                    make(path)
            except Exception as error:  # A peer may fail in any way; the others are measured all the same.
                if form in OURS:
                    raise
                failed[path] = not_available(error)
            if path in failed:
                errors[form] = failed[path]
            else:
                written[form] = path
            progress.update()
    return written, errors


def _makers(bundle, representative):
    """Form → the name of its file, and what writes it to a path."""
    plain, size = in_float32(bundle.model), bundle.preprocessing.input_size
    unfolded = prepared(plain, folded=False)
    one_by_one = [image[None] for image in representative]

    def lite(convert, model, quantize):
        return lambda path: path.write_bytes(convert(model, size, quantize, one_by_one))

    def server(format, quantize):
        return lambda path: onnx_file.save(plain, size, path, format, quantize, one_by_one)

    makers = {
        "keras": ("model.keras", plain.save),
        "folded": ("folded.keras", lambda path: fold(plain).save(path)),
        "saved_model": ("saved_model", lambda path: saved_model.save(prepared(plain), bundle.preprocessing, path)),
    }
    for quantize, file_name in tflite.FILE_NAMES.items():
        form = "tflite" if quantize == "none" else f"tflite_{quantize}"
        makers[form] = file_name, lite(functools.partial(tflite.convert, logits=True), plain, quantize)
        makers[f"stock_{form}"] = f"stock_{form}.tflite", lite(converter.convert, unfolded, quantize)
    servers = {"onnx": ("onnx", "none"), "onnx_int8": ("onnx", "int8"), "openvino_int8": ("openvino", "int8")}
    servers |= dict.fromkeys(("openvino", "openvino_bfloat16"), ("openvino", "none"))
    for form, (format, quantize) in servers.items():
        file_name = onnx_file.FILE_NAMES[format][quantize]
        makers[form] = file_name, server(format, quantize)
    for form in ("timm", "timm_compiled", "timm_bfloat16"):
        makers[form] = "model.safetensors", lambda path: _write_for_timm(plain, path)
    return makers


def _write_for_timm(model, path):
    """Writes weights, and beside them what timm's own class takes to hold them."""
    save_torch(model, path)
    sizes = architecture(model)
    names = ("dim", "depth", "kernel_size", "patch_size", "activation", "mean", "std")
    sizes = {name: sizes[name] for name in names} | {"num_classes": model.output_shape[-1]}
    (path.parent / "sizes.json").write_text(json.dumps(sizes))
