"""The page in headless Chromium, driven by playwright (web/test/browser.js)."""

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_convmixer
from keras_convmixer import bundles
from keras_convmixer.data import decode
from keras_convmixer.deployment.export import export
from keras_convmixer.inference.prediction import predict
from keras_convmixer.preprocessing import Preprocessing
from keras_convmixer.web import written
from keras_convmixer.web.server import serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "saved_models" / "digits"
# bytes that a visit may download without the model
MOST = 12e6
ORIENTATION = 0x0112


class Browser:
    """Takes the steps of web/test/browser.js, each a method call, and gives what the page then shows."""

    def __init__(self, chromium):
        command = ["node", ROOT / "web" / "test" / "browser.js", chromium]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __getattr__(self, step):
        def take(**options):
            self._process.stdin.write(json.dumps({"step": step, **options}, default=str) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
            assert "error" not in answer, answer["error"]
            return answer

        return take

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=30)


@pytest.fixture(scope="module")
def browser():
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("needs Chromium: put it on the PATH, or set CHROMIUM to its path")
    if not (ROOT / "web" / "node_modules" / "playwright-core").is_dir():
        pytest.skip("needs Node, and web/node_modules: make web")
    browser = Browser(chromium)
    yield browser
    browser.close()


@contextlib.contextmanager
def served(folder, *more):
    """The address of the page, and of more of the folder's files."""
    with serving(folder, [*written.names(folder), *more], port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The page of the digits in float32 and int8."""
    out = tmp_path_factory.mktemp("site") / "page"
    for quantize in ("none", "int8"):
        export(DIGITS, out, format="web", quantize=quantize, images=20)
    return out


@pytest.fixture
def url(folder):
    with served(folder) as url:
        yield url


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    """Gives the path of one of the digits, 200 pixels wide."""
    from sklearn.datasets import load_digits

    images = load_digits().images
    room = tmp_path_factory.mktemp("digits")

    def digit(number):
        path = room / f"{number}.png"
        small = Image.fromarray((images[number] * 255 / 16).astype("uint8"))
        small.resize((200, 200), Image.Resampling.BICUBIC).save(path)
        return path

    return digit


def agree(browser, model, paths):
    """Asserts that the page says of pictures what `predict` says."""
    for prediction in predict(model, paths):
        shown = browser.choose(file=prediction.path)
        assert shown["problem"] == ""
        assert shown["classes"][0][0] == prediction.classes[0][0], prediction.path
        expected = dict(prediction.classes)
        for name, probability in shown["classes"]:
            assert probability == pytest.approx(expected.get(name, probability), abs=1e-3), prediction.path
        assert len(expected.keys() & dict(shown["classes"]).keys()) >= len(expected) - 1
    return shown


def own_origin(shown, url):
    assert {urlsplit(request)[:2] for request in shown["requests"]} == {urlsplit(url)[:2]}
    assert shown["problems"] == []


def test_it_says_of_50_digits_what_predict_says(browser, url, digit, folder):
    opened = browser.open(at=url)
    model = (folder / "model.tflite").stat().st_size
    assert opened["isolated"]
    assert "threads" in opened["status"] or os.cpu_count() == 1
    assert opened["downloaded"] - model < MOST
    own_origin(agree(browser, DIGITS, [digit(number) for number in range(50)]), url)


def test_it_says_of_photographs_what_predict_says(browser, imagenet_samples, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras_convmixer.ConvMixer(
        96, 2, kernel_size=7, patch_size=7, input_shape=(224, 224, 3), num_classes=10, classifier_activation=None
    )
    # Random weights tell photographs hardly apart, unless they are made to.
    kernel, bias = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([30 * kernel, bias])
    bundle = bundles.Bundle(model, Preprocessing(), tuple("abcdefghij"))
    export(bundle, tmp_path / "page", format="web", compare=False)
    with tarfile.open(imagenet_samples) as archive:
        members = [member for member in archive if member.isfile()][:50]
        archive.extractall(tmp_path / "photos", members, filter="data")
    with served(tmp_path / "page") as url:
        browser.open(at=url)
        own_origin(agree(browser, bundle, [tmp_path / "photos" / member.name for member in members]), url)


@pytest.fixture
def pictures(tmp_path):
    """A picture in many kinds of files."""
    rows, columns = np.mgrid[:375, :500]
    noise = np.random.default_rng(0).integers(0, 40, (375, 500))
    pixels = np.stack([rows / 2, columns / 2.5, (rows + columns) % 256], -1) + noise[..., None] / 2
    image = Image.fromarray(pixels.clip(0, 255).astype("uint8"))
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    image.save(tmp_path / "plain.png")
    for name in ("turned.jpg", "turned.png", "turned.avif"):
        image.save(tmp_path / name, exif=turned)
    for mode, name in (("L", "grey.jpg"), ("L", "grey.png"), ("CMYK", "cmyk.jpg"), ("P", "palette.gif")):
        image.convert(mode).save(tmp_path / name)
    image.save(tmp_path / "lossy.webp", quality=80)
    image.save(tmp_path / "progressive.jpg", progressive=True)
    image.crop((0, 0, 3, 200)).save(tmp_path / "strip.png")
    image.crop((0, 0, 1, 1)).save(tmp_path / "pixel.png")
    return sorted(tmp_path.iterdir())


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_pixels_are_those_of_python(browser, url, pictures, interpolation):
    browser.open(at=url)
    for size, crop in (((64, 96), 0.9), ((500, 375), 1.0)):
        asked = {"height": size[0], "width": size[1], "crop": crop, "interpolation": interpolation}
        for path in pictures:
            content = base64.b64decode(browser.pixels(file=path, input=asked)["value"])
            pixels = np.frombuffer(content, np.uint8).reshape(*size, 3)
            encoded = tf.constant(path.read_bytes())
            expected = decode.evaluation_image(encoded, Preprocessing(size, crop, interpolation)).numpy()
            difference = np.abs(pixels - expected)
            assert difference.max() <= 1, path.name
            assert np.mean(difference == 0) > 0.999, path.name


def test_another_form_is_taken_and_the_picture_stays(browser, url, digit):
    browser.open(at=url)
    exact = browser.choose(file=digit(0))
    small = browser.take(form="int8")
    assert small["classes"][0][0] == exact["classes"][0][0]
    assert small["classes"][0][1] != exact["classes"][0][1]
    assert browser.take(form="float32")["classes"] == exact["classes"]
    own_origin(browser.press(name="Activation map"), url)


@pytest.mark.parametrize("by", ["drop", "paste"])
def test_a_picture_may_be_dropped_and_pasted(browser, url, digit, by):
    browser.open(at=url)
    assert browser.give(by=by)["problem"] == "There is no picture in that."
    given = browser.give(by=by, name="digit.png", type="image/png", path=digit(7))
    assert given["problem"] == ""
    assert given["classes"][0][0] == "7"


def test_what_a_canvas_forgets_is_said(browser, url, tmp_path):
    Image.new("RGBA", (20, 20), (200, 200, 200, 0)).save(tmp_path / "glass.png")
    Image.new("RGBA", (20, 20), (200, 200, 200, 255)).save(tmp_path / "full.png")
    browser.open(at=url)
    assert "transparent parts count as black" in browser.choose(file=tmp_path / "glass.png")["status"]
    assert "transparent" not in browser.choose(file=tmp_path / "full.png")["status"]


def test_no_trouble_ends_it(browser, url, digit, tmp_path):
    browser.open(at=url)
    refused = browser.press(name="Camera")
    assert refused["problem"] == "The camera was not allowed. Pictures can be dropped, pasted or chosen."
    dropped = browser.give(name="notes.txt", type="text/plain", content="no picture")
    assert dropped["problem"] == "notes.txt is no picture that this browser can read"
    (tmp_path / "cut.png").write_bytes(digit(1).read_bytes()[:200])
    assert browser.choose(file=tmp_path / "cut.png")["problem"].startswith("cut.png is no picture")
    Image.new("L", (12_000, 8_000)).save(tmp_path / "huge.png")
    assert browser.choose(file=tmp_path / "huge.png")["problem"] == "The picture has 96 megapixels; 89 are the most"
    # What came before was no harm, and fifty megapixels are none either.
    rows = np.arange(6_000) * 255 // 6_000
    Image.fromarray(np.broadcast_to(rows[:, None], (6_000, 8_400)).astype("uint8")).save(tmp_path / "large.jpg")
    agree(browser, DIGITS, [tmp_path / "large.jpg", digit(1)])
    own_origin(browser.choose(file=digit(2)), url)


def test_the_camera_is_classified_until_it_is_stopped(browser, url):
    shown, wait = "Number(document.body.dataset.shown ?? 0)", "await new Promise((done) => setTimeout(done, 500));"
    browser.open(at=url, camera="there")
    for _ in range(2):
        assert browser.press(name="Camera")["problem"] == ""
        browser.evaluate(
            script=f"(async () => {{ for (const end = {shown} + 3; {shown} < end; ) {{ {wait} }} }})()"
        )
        browser.evaluate(script=f"(async () => {{ document.getElementById('camera').click(); {wait}{wait} }})()")
        stopped = browser.evaluate(script=f"[{shown}, document.querySelector('video').hidden]")["value"]
        browser.evaluate(script=f"(async () => {{ {wait} }})()")
        assert browser.evaluate(script=f"[{shown}, true]")["value"] == stopped


@pytest.mark.parametrize(
    "harm, problem",
    [
        (lambda path: path.unlink(), "model.tflite cannot be downloaded: the server answered 404"),
        (lambda path: path.write_bytes(b"no model"), "model.tflite is not the model that was exported"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:8] + bytes(path.stat().st_size - 8)),
            "The model cannot be loaded",
        ),
    ],
)
def test_of_a_model_that_cannot_be_read_another_form_can_be(browser, folder, digit, tmp_path, harm, problem):
    shutil.copytree(folder, tmp_path / "page")
    with served(tmp_path / "page") as url:
        harm(tmp_path / "page" / "model.tflite")
        opened = browser.open(at=url)
        assert problem in opened["problem"]
        assert opened["status"] == "There is no model."
        browser.evaluate(script="document.querySelectorAll('#forms input')[1].click()")
        assert browser.choose(file=digit(3))["classes"][0][0] == "3"


def test_an_answer_goes_with_the_form_that_gave_it(browser, folder, digit, tmp_path):
    shutil.copytree(folder, tmp_path / "page")
    with served(tmp_path / "page") as url:
        browser.open(at=url)
        assert browser.choose(file=digit(3))["classes"][0][0] == "3"
        (tmp_path / "page" / "model_int8.tflite").unlink()
        shown = browser.take(form="int8")
        assert (shown["status"], shown["classes"]) == ("There is no model.", [])
        assert browser.evaluate(script="document.getElementById('latency').textContent")["value"] == "–"


def test_a_browser_without_simd_is_told(browser, url):
    shown = browser.open(at=url, simd=False)
    assert "no WebAssembly with SIMD" in shown["problem"]


def test_any_web_server_can_host_it(browser, folder, digit):
    """One that sends no header of ours: the page then has one thread."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as host:
        url = f"http://127.0.0.1:{host.stdout.readline().split('port ')[1].split()[0]}/"
        opened = browser.open(at=url)
        assert not opened["isolated"]
        assert opened["downloaded"] < MOST
        own_origin(agree(browser, DIGITS, [digit(4)]), url)
        host.terminate()


def test_the_lines_in_the_documentation_say_what_predict_says(browser, folder, digit, tmp_path):
    (lines,) = re.findall(r"```js\n(.+?)```", (ROOT / "docs" / "browser.md").read_text(encoding="utf-8"), re.DOTALL)
    (content,) = decode.evaluation_image(
        tf.constant(digit(6).read_bytes()), Preprocessing((8, 8), 1.0, "bilinear")
    )[None]
    given = (
        f"const [height, width] = [8, 8];\nconst pixels = Float32Array.from({content.numpy().ravel().tolist()});\n"
    )
    shutil.copytree(folder, tmp_path / "page")
    shutil.copytree(ROOT / "web/node_modules/@litertjs/core/wasm", tmp_path / "page" / "wasm", dirs_exist_ok=True)
    (tmp_path / "page" / "lines.html").write_text('<body><script type="module" src="lines.js"></script>')
    (ROOT / "web" / "node_modules" / ".lines.js").write_text(given + lines)
    bundled = ["npx", "esbuild", "node_modules/.lines.js", "--bundle", "--format=esm", "--target=es2022"]
    subprocess.run(
        [*bundled, f"--outfile={tmp_path}/page/lines.js"], cwd=ROOT / "web", check=True, capture_output=True
    )
    every = [str(path.relative_to(tmp_path / "page")) for path in (tmp_path / "page").rglob("*") if path.is_file()]
    with served(tmp_path / "page", *every) as url:
        assert browser.logged(at=f"{url}lines.html")["text"] == "6"


def test_a_keyboard_and_a_phone_are_enough(browser, url, digit):
    shown = browser.open(at=url, viewport={"width": 320, "height": 640})
    assert not shown["overflow"]
    browser.choose(file=digit(5))
    names = browser.tab(times=6)["names"]
    assert names[:5] == ["Choose a picture", "Camera", "Activation map", "Measure the speed", "radio"]
