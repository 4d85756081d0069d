"""Which files are taken of what is named on a command line."""

import pytest

from bnnlight.imaging.image_files import find_images


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "below/c.gif", "notes.txt", "._a.JPG", "below/.hidden.png"):
        (folder / name).touch()
    return folder


def names(files):
    return [file.name for file in files]


def test_each_file_is_taken_once_hidden_ones_not_at_all(folder, monkeypatch, capsys):
    assert names(find_images([folder])) == ["a.JPG", "b.png", "c.gif"] and capsys.readouterr().err == ""
    monkeypatch.chdir(folder)
    assert names(find_images(["b.png", folder, "./a.JPG"])) == ["b.png", "a.JPG", "c.gif"]
    assert capsys.readouterr().err == f"named twice and taken once: {folder}/b.png and 1 more\n"
    # a link with another name may be meant
    (folder / "z.png").symlink_to("b.png")
    assert names(find_images([folder]))[2:] == ["c.gif", "z.png"] and capsys.readouterr().err == ""


def test_pictures_in_other_formats_are_told(folder, tmp_path, capsys, check_one_line):
    for name in ("x.heic", "y.HEIC", "below/z.svg"):
        (folder / name).touch()
    assert len(find_images([folder])) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "2 .heic, 1 .svg" in line and "convert them" in line
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.heic").touch()
    with pytest.raises(FileNotFoundError) as error:
        find_images([other])
    check_one_line(error, str(other), ".png", "1 .heic")


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("http://example.org/cat.jpg", "download it"),
        ("s3://bucket/photos/", "download it"),
        ("file:///home/me/a%20cat.jpg", "write /home/me/a cat.jpg"),
    ],
)
def test_an_address_is_no_file(address, advice, check_one_line):
    with pytest.raises(ValueError) as error:
        find_images([address])
    check_one_line(error, address, advice)


def test_links_that_lead_nowhere(folder, check_one_line):
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "gone.png").symlink_to("absent.png")
    (folder / "below/up").symlink_to("..")
    # reading them says what is wrong, beside the others
    found = find_images([folder], but=[folder / "loop.png", folder / "b.png"])
    assert names(found) == ["a.JPG", "c.gif", "gone.png"]
    with pytest.raises(FileNotFoundError) as error:
        find_images([folder / "loop.png"])
    check_one_line(error, "loop.png", "a link to a file that does not exist")
