"""File names that are not spelt as their files are."""

from pathlib import Path

import pytest

from megdet_hvd.config.schema import AnnotationSource
from megdet_hvd.data.picture_files import PictureFolder
from megdet_hvd.errors import UserError
from tests.data.made import read_coco

from .made import box, image, save_noise, write_set

NFC, NFD = "Stra\u00dfe_\u00e9.jpg", "Stra\u00dfe_e\u0301.jpg"


@pytest.mark.parametrize(
    ("name", "there", "found"),
    [
        ("a.jpg", "a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg", "./a.jpg"),
        ("sub//a.jpg", "sub/a.jpg", "sub//a.jpg"),
        ("../images/a.jpg", "a.jpg", "../images/a.jpg"),
        ("sub\\a.jpg", "sub/a.jpg", "sub/a.jpg"),
        (".\\sub\\a.jpg", "sub/a.jpg", "sub/a.jpg"),
        ("a\\b.jpg", "a\\b.jpg", "a\\b.jpg"),
        ("a.JPG", "a.jpg", "a.jpg"),
        ("Sub/A.jpg", "sub/a.JPG", "sub/a.JPG"),
        ("my%20cat.jpg", "my cat.jpg", "my cat.jpg"),
        ("100%25.jpg", "100%25.jpg", "100%25.jpg"),
        (" a.jpg ", "a.jpg", "a.jpg"),
        (NFC, NFD, NFD),
        (NFD, NFC, NFC),
        ("images/a.jpg", "a.jpg", "a.jpg"),
        ("images\\a.jpg", "a.jpg", "a.jpg"),
        ("set/images/a.jpg", "a.jpg", "a.jpg"),
        ("/home/her/images/sub/a.jpg", "sub/a.jpg", "sub/a.jpg"),
        ("C:\\Users\\her\\Images\\a.jpg", "a.jpg", "a.jpg"),
        ("/elsewhere/a.jpg", "a.jpg", "a.jpg"),
        ("http://images.cocodataset.org/train2017/a.jpg", "train2017/a.jpg", "train2017/a.jpg"),
        ("https://host/x/a%20b.jpg?size=1", "a b.jpg", "a b.jpg"),
        ("a.jpg?width=640&x=1", "a.jpg", "a.jpg"),
        ("a.jpg?width=640", "a.jpg?width=640", "a.jpg?width=640"),
        ("../../label-studio/data/media/upload/1/a.jpg", "a.jpg", "a.jpg"),
        ("elsewhere/a.jpg", "a.jpg", None),
        ("b.jpg", "a.jpg", None),
        ("sub", "sub/a.jpg", "sub"),
        ("a\0b.jpg", "a.jpg", None),
        ("\ud800/a.jpg", "a.jpg", None),
        ("x/" * 3000 + "a.jpg", "a.jpg", None),
        ("..", "a.jpg", None),
        ("%", "a.jpg", None),
    ],
)
def test_the_file_that_a_name_means(
    tmp_path: Path, name: str, there: str, found: str | None
) -> None:
    folder = tmp_path / "set" / "images"
    (folder / there).parent.mkdir(parents=True)
    (folder / there).touch()
    assert PictureFolder(folder).find(name) == found
    if found is not None:
        assert (folder / found).exists()


def test_a_whole_path_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "else" / "a.jpg"
    file.parent.mkdir()
    file.touch()
    assert PictureFolder(tmp_path / "images").find(str(file)) == str(file)


def test_two_alike_are_neither(tmp_path: Path) -> None:
    for name in ("a.jpg", "A.jpg"):
        (tmp_path / name).touch()
    folder = PictureFolder(tmp_path)
    assert folder.find("a.JPG") is None
    assert (folder.find("a.jpg"), folder.find("A.jpg")) == ("a.jpg", "A.jpg")


def test_names_are_mended_with_a_note(tmp_path: Path) -> None:
    images = [image(1, "P1.PNG"), image(2, "P2.PNG")]
    write_set(tmp_path, images, [box(1, 1, [0, 0, 5, 5])], pictures=False)
    for k in (1, 2):
        save_noise(tmp_path / "pictures" / f"p{k}.png", 40, 30)
    source = AnnotationSource(
        annotations=str(tmp_path / "set.json"), images=str(tmp_path / "pictures")
    )
    index = read_coco([source], keep_empty=True, invalid_boxes="stop")
    assert index.file_names == ["p1.png", "p2.png"]
    assert index.file(1).is_file()
    assert index.notes == (
        "2 pictures lie under another name than their file_name (upper and lower case), the "
        "first: 'P1.PNG' is 'p1.png'",
    )


def test_a_folder_too_high_is_told(tmp_path: Path) -> None:
    source = write_set(tmp_path, [image(1), image(2)], [box(1, 1, [0, 0, 5, 5])])
    too_high = AnnotationSource(annotations=source.annotations, images=str(tmp_path))
    with pytest.raises(UserError, match=r"missing picture file: 2, .*it is in .*/pictures; is"):
        read_coco([too_high], keep_empty=True, invalid_boxes="stop")


def test_names_for_no_file_stay_on_their_line(tmp_path: Path) -> None:
    images = [{**image(1), "file_name": "a\nb\ud800.png"}]
    source = write_set(tmp_path, images, [box(1, 1, [0, 0, 5, 5])], pictures=False)
    with pytest.raises(UserError) as stopped:
        read_coco([source], keep_empty=True, invalid_boxes="stop")
    assert "a\\nb\\ud800.png" in str(stopped.value).splitlines()[0]


def test_two_names_are_not_mended_to_one_file(tmp_path: Path) -> None:
    images = [image(1, "p1.png"), image(2, "P1.png")]
    write_set(tmp_path, images, [box(1, 1, [0, 0, 5, 5])], pictures=False)
    save_noise(tmp_path / "pictures" / "p1.png", 40, 30)
    source = AnnotationSource(
        annotations=str(tmp_path / "set.json"), images=str(tmp_path / "pictures")
    )
    with pytest.raises(UserError, match=r"missing picture file: 1: .*image 2: .*two for one"):
        read_coco([source], keep_empty=True, invalid_boxes="stop")
