"""benchmarks/all.py: one page of all benchmarks, with commands of these tests in their place."""

import re
from pathlib import Path

import all as all_speeds
import pytest

from keras_convmixer.machine import processor

ROOT = Path(all_speeds.__file__).parents[1]


@pytest.fixture
def commands(monkeypatch):
    def set_to(**named):
        monkeypatch.setattr(all_speeds, "BENCHMARKS", named)

    return set_to


def test_one_that_fails_is_named_and_the_others_go_on(tmp_path, commands, capsys):
    commands(
        broken="""python -c "print('ha' + 'lf'); raise SystemExit('no such thing')" """,
        fine="""python -c "print('12.5 images/s')" """,
    )
    out = tmp_path / "speed.md"
    assert all_speeds.main(["--out", str(out)]) == 1
    page = out.read_text(encoding="utf-8")
    assert processor() in page
    assert re.search(r"## broken\n.*exit code 1.*no such thing.*## fine\n.*```\n12.5 images/s\n```", page, re.S)
    assert "half" not in page
    assert "no such thing" in capsys.readouterr().err
    assert all_speeds.main(["--out", str(out), "--only", "fine"]) == 0
    assert "broken" not in out.read_text(encoding="utf-8")


def test_data_goes_where_it_is_asked_for(tmp_path, commands, monkeypatch):
    commands(plain='python -c "print(0)"', photos='python -c "import sys; print(sys.argv[1])" PHOTOS')
    out = tmp_path / "speed.md"
    assert all_speeds.main(["--out", str(out)]) == 0
    assert "## photos" not in out.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").touch()
    assert all_speeds.main(["--out", str(out), "--photos", "here"]) == 0
    page = out.read_text(encoding="utf-8")
    assert f"```\n{tmp_path / 'here'}\n```" in page
    assert page.count(str(tmp_path)) == 1  # the command says PHOTOS
    assert all_speeds.main(["--out", str(out), "--photos", "a_name"]) == 0
    assert "```\na_name\n```" in out.read_text(encoding="utf-8")


def test_what_needs_data_says_so(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        all_speeds.main(["--out", str(tmp_path / "speed.md"), "--only", "input"])
    assert stopped.value.code == 2
    assert "input needs --photos" in capsys.readouterr().err


@pytest.mark.parametrize("name", all_speeds.BENCHMARKS)
def test_every_command_is_there_and_takes_its_options(name, capsys):
    """All but running them."""
    program, *words = all_speeds._words(name)
    options = [word for word in words if word.startswith("--")]
    if program == "convmixer":
        from keras_convmixer.cli.main import main

        with pytest.raises(SystemExit) as stopped:
            main([*words, "--help"])
        assert stopped.value.code == 0
        # The parser prints its help past an option that it does not know.
        known = capsys.readouterr().out
        assert all(option in known for option in options)
    else:
        script = ROOT / words[0]
        assert script.is_file()
        known = script.read_text(encoding="utf-8")
        assert all(f'"{option}"' in known for option in options)
