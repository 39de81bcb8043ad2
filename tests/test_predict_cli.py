import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from megdet_hvd.data.named_pictures import named_pictures
from megdet_hvd.predict import main, output_files
from tests.evaluation.checkpoints import write_checkpoint


def picture(file: Path, size: tuple[int, int] = (90, 60), mode: str = "RGB") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(file)
    return file


def test_names_keep_apart() -> None:
    images = [
        Path("a/x.jpg"),
        Path("b/x.jpg"),
        Path("b/X.png"),
        Path("x_2.jpg"),
        Path("out/y.png"),
        Path("z.tar.jpg"),
    ]
    names = [file.name for file in output_files(images, Path("out"))]
    assert names == ["x.png", "x_2.png", "X_3.png", "x_2_2.png", "y_2.png", "z.tar.png"]
    assert all(file.parent == Path("out") for file in output_files(images, Path("out")))


def test_no_picture_of_the_users_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given by another way to its folder, or lying in the output folder ungiven."""
    write_checkpoint(tmp_path / "a.pt")
    own = [picture(tmp_path / "out" / name) for name in ("given.png", "beside.png")]
    (tmp_path / "way").symlink_to(tmp_path / "out")
    before = [file.read_bytes() for file in own]
    jpg = picture(tmp_path / "beside.jpg")
    words = ["--checkpoint", str(tmp_path / "a.pt"), "--device", "cpu", "--out"]
    for _ in range(2):  # what was written itself is replaced
        given = [str(tmp_path / "way" / "given.png"), str(jpg)]
        assert main([*words, str(tmp_path / "out"), *given]) == 0
        assert [file.read_bytes() for file in own] == before
        assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
            "beside.png",
            "beside_2.png",
            "given.png",
            "given_2.png",
        ]
    dotted = Path(f"{tmp_path}/out/../out/given.png")
    assert output_files([dotted], tmp_path / "out") == [tmp_path / "out" / "given_2.png"]
    capsys.readouterr()


def test_pictures_are_written_and_what_is_no_picture_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path / "runs/my run/checkpoints/iteration_00000100.pt")
    plain = picture(tmp_path / "one" / "a name with 'quotes' & ünicode.png")
    grey = picture(tmp_path / "two" / plain.name, (600, 400), "L")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no more")
    out = tmp_path / "new" / "folder"
    arguments = ["--checkpoint", str(tmp_path / "runs/my run"), "--score", "0.2", "--device", "cpu"]
    code = main([*arguments, str(plain), str(broken), str(grey), "--out", str(out)])
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"error: {broken}: cannot be decoded")
    names = sorted(file.name for file in out.iterdir())
    assert names == [f"{plain.stem}.png", f"{plain.stem}_2.png"]
    first, second = captured.out.splitlines()
    assert first.startswith(f"{plain}: ")
    assert second.endswith(f"→ {out / names[1]}")
    small = Image.open(out / names[0])
    assert small.size == (480, 320)  # enlarged, so that the labels can be read
    assert Image.open(out / names[1]).size == (600, 400)
    # What is written differs from the picture where boxes are: there are detections to draw.
    assert any(name in first for name in ("cat", "dog", "traffic light"))
    enlarged = Image.open(plain).resize((480, 320), Image.Resampling.BICUBIC)
    assert np.any(np.asarray(small) != np.asarray(enlarged))
    assert main([*arguments[:2], "--score", "1", str(plain), "--out", str(out)]) == 0
    assert "nothing at or above 1.0" in capsys.readouterr().out


def test_bad_input_is_one_message_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(picture(tmp_path / "a.png"))
    assert main(["--checkpoint", str(tmp_path / "none.pt"), image]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/none.pt: no such checkpoint file\n"
    write_checkpoint(tmp_path / "best.pt")
    (tmp_path / "file").touch()
    arguments = ["--checkpoint", str(tmp_path / "best.pt"), "--device", "cpu", image]
    assert main([*arguments, "--out", str(tmp_path / "file")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--score", "50%"])
    assert "50% is not a number from 0 to 1" in capsys.readouterr().err


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom megdet_hvd.predict import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--checkpoint FILE" in done.stdout


def test_folders_patterns_and_addresses(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "a/x.jpg"), picture(tmp_path / "a/y.PNG")
    odd = picture(tmp_path / "a/b/x[1].jpg")
    (tmp_path / "a/notes.txt").write_text("no picture")
    (tmp_path / "a/._x.jpg").write_bytes(b"\0\5\x16\7")  # a Mac's
    (tmp_path / "empty/below").mkdir(parents=True)
    others = [tmp_path / "others" / name for name in ("1.jfif", "2.pgm", "3.avif")]
    for file in others:
        picture(tmp_path / "others/1.jpg").rename(file)

    def given(*words: str) -> tuple[list[Path], str]:
        found, problems = named_pictures(str(tmp_path / word) for word in words)
        return found, "; ".join(map(str, problems))

    assert given("a") == ([first, second], "")
    assert given("others") == (others, "")
    assert given("a/*.jpg", "a") == ([first, second], ""), "each once"
    assert given("a/**/*.jpg") == ([odd, first], "")
    assert given("a/b/x[1].jpg") == ([odd], ""), "a file of that very name"
    assert given("a/notes.txt", "none.jpg")[0] == [tmp_path / "a/notes.txt", tmp_path / "none.jpg"]
    found, told = given("*.bmp", "empty", "a/x.jpg")
    assert found == [first] and "no file fits" in told and "empty/**/*.jpg" in told
    _, [problem] = named_pictures(["https://a.org/p.jpg?x=1"])
    assert str(problem).startswith("https://a.org/p.jpg?x=1: is an address") and "curl" in str(
        problem
    )


def test_a_folder_of_dark_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(tmp_path / "w.pt")
    (tmp_path / "deep").mkdir()
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    for name in ("1.png", "2.png"):
        Image.fromarray(ramp).save(tmp_path / "deep" / name)
    words = ["--checkpoint", str(tmp_path / "w.pt"), "--out", str(tmp_path / "out")]
    words += ["--device", "cpu", str(tmp_path / "deep")]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.out.count("→") == 2
    assert captured.err.count("\n") == 1 and "2 of 2 pictures" in captured.err
    assert "where 4095 is the brightest" in captured.err and "--value-range 0 4095" in captured.err
    assert main([*words, "--value-range", "0", "4095"]) == 0
    assert capsys.readouterr().err == ""


def test_a_name_is_one_line_of_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a terminal would make of it."""
    write_checkpoint(tmp_path / "a.pt")
    file = picture(tmp_path / "a\x1b[31m\nb.png")
    words = ["--checkpoint", str(tmp_path / "a.pt"), "--device", "cpu", "--score", "1"]
    assert main([*words, "--out", str(tmp_path / "out"), str(file)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "a\\x1b[31m\\nb.png: nothing at or above 1.0 → " in line
    assert (tmp_path / "out" / file.name).exists()


def test_many_pictures_of_one_name() -> None:
    images = [Path(f"{k}/x.jpg") for k in range(20_000)]
    names = [file.name for file in output_files(images, Path("out"))]
    assert len(set(names)) == len(names) and names[-1] == "x_20000.png"
