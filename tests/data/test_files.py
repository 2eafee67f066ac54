"""Files that would take all memory, or for ever, to read are refused in one line."""

import os
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from ppvae import cli, data
from ppvae.data import files


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(action, *arguments):
    """What is said, without much time or memory."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises((ValueError, OSError)) as caught:
            action(*arguments)
        seconds, memory = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seconds < 30  # far from what each of these would take; slow machines trace memory slowly
    assert memory < 64 * 2**20
    message = str(caught.value)
    assert "\n" not in message
    return message


def exploding():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for name, before in zip("bcdefghij", "abcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    return "\n".join(lines)


YAML = {
    "aliases that explode": (exploding(), "no aliases"),
    "a list that holds itself": ("a: &a [*a]", "no aliases"),
    "merges that explode": ("a: &a {x: 1}\nb: {<<: [*a, *a]}", "no aliases"),
    "200,000 brackets": ("a: " + "[" * 200_000, "at most 20 lists"),
    "200,000 braces": ("a: " + "{a: " * 50_000, "at most 20 lists"),
    "levels of lines": ("".join(f"{' ' * depth}a:\n" for depth in range(500)), "at most 20 lists"),
    "a number of 100,000 digits": ("latent: " + "9" * 100_000, "at most 4,096 characters"),
    "a number of base 60": ("latent: 1" + ":59" * 30_000, "at most 4,096 characters"),
    "a date": ("latent: 2001-01-01", "should have text, numbers"),
    "bytes": ("latent: !!binary aGFsbG8=", "should have text, numbers"),
    "an object": ("latent: !!python/object/apply:os.system ['touch sprung']", "should be a YAML file"),
    "brackets in text": ("data: '" + "[" * 4000 + "'", "a value should be one line"),
    "too long": ("a: x\n" * 100_000, "at most 262,144 bytes"),
}


@pytest.mark.parametrize(("text", "said"), YAML.values(), ids=YAML)
def test_yaml_that_would_not_end_is_refused(folder, text, said, capsys):
    (folder / "a.yaml").write_text(text)
    assert cli.main(["fit", "--config", "a.yaml", "--out", "RUN"]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize("text", [exploding(), "a: " + "[" * 200_000, "a: 1" + ":59" * 30_000])
def test_a_line_up_of_that_kind_is_refused(folder, text):
    (folder / "a.yaml").write_text(text)
    assert "a.yaml should" in refused(files.read_yaml, folder / "a.yaml")


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 100_000, '{"a": ' * 30_000])
def test_json_of_that_kind_is_refused(folder, text):
    (folder / "a.json").write_text(text)
    assert "should be a JSON file" in refused(files.read_json, folder / "a.json")


COMMANDS = {
    "fit": ["fit", "--out", "OUT", "--config"],
    "compare": ["compare", "--out", "OUT", "--config"],
    "line-up": ["compare", "--out", "OUT", "--lineup"],
    "data": ["fit", "--out", "OUT", "--data"],
    "run": ["evaluate"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["pipe.yaml", "pipe.csv", "pipe.npy", "pipe.npz", "zero", "folder.csv"])
def test_pipes_devices_and_folders_are_no_files(folder, command, kind, capsys):
    if kind == "zero":
        (folder / kind).symlink_to("/dev/zero")
    elif kind == "folder.csv":
        (folder / kind).mkdir()
    else:
        os.mkfifo(folder / kind)
    assert cli.main([*COMMANDS[command], kind]) == 2
    line = capsys.readouterr().err
    assert kind in line
    assert line.count("\n") == 1


def test_a_run_folder_of_pipes_is_none(folder, capsys):
    (folder / "RUN").mkdir()
    for name in ("config.yaml", "observation.json", "weights.safetensors"):
        os.mkfifo(folder / "RUN" / name)
    assert cli.main(["evaluate", "RUN"]) == 2
    assert "a run folder should hold" in capsys.readouterr().err


def test_pipes_among_images_are_passed_over(folder):
    (folder / "images").mkdir()
    os.mkfifo(folder / "images" / "a.png")
    for i in range(4):
        Image.fromarray(np.full((2, 2), i, np.uint8)).save(folder / "images" / f"b{i}.png")
    assert data.load_dataset("images").observation.shape == (1, 2, 2)


def zeros(path, rows, name="x.npy"):
    """An archive of an array of zeros, packed as only zeros can be: written without ever holding it."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({rows}, 1024), }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    head = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w", force_zip64=True) as file:
        file.write(head)
        block = bytes(2**20)
        for _ in range(rows // 1024):
            file.write(block)


def test_an_archive_out_of_proportion_is_refused_before_it_is_unpacked(folder):
    zeros("a.npz", 400 * 1024)
    assert os.path.getsize("a.npz") < 2**20
    message = refused(data.load_dataset, "a.npz")
    assert "100 times its size" in message
    assert "0.4 GiB" in message


def test_only_the_arrays_asked_for_are_read(folder):
    np.savez_compressed("a.npz", x=np.random.default_rng(0).normal(size=(20, 3)), y=np.arange(20) % 2)
    zeros("a.npz", 400 * 1024, "other.npy")
    with zipfile.ZipFile("a.npz", "a") as archive:
        archive.writestr("pickled.npy", b"\x80\x04.")
    assert data.load_dataset("a.npz").observation.classes == 2


def test_zeros_that_fit_are_read(folder):
    zeros("a.npz", 2 * 1024)
    assert data.load_dataset("a.npz").observation.shape == (1024,)


def test_a_header_that_promises_more_than_there_is(folder):
    np.save("a.npy", np.zeros((4, 4)))
    content = (folder / "a.npy").read_bytes().replace(b"(4, 4), }  ", b"(9999999999, 4), }")
    (folder / "a.npy").write_bytes(content)
    assert "a.npy should be a whole numpy file" in refused(data.load_dataset, "a.npy")


def a_picture(path, width, height):
    """The header of a PNG picture, and almost no pixels."""

    def chunk(kind, content):
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    end = chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + end)


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (10_000, 10_000), (2**31 - 1, 2**31 - 1)])
def test_pictures_of_hundreds_of_megapixels_are_refused(folder, width, height):
    (folder / "images").mkdir()
    a_picture(folder / "images" / "a.png", width, height)
    assert "a.png should be a whole image" in refused(data.load_dataset, "images")


def test_a_picture_that_needs_a_program_to_be_read_is_none(folder):
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n")
    assert "should be a whole image" in refused(data.load_dataset, "images")


def test_a_file_stands_under_its_name_only_when_it_is_whole(folder):
    (folder / "a").write_text("old")

    def half_way():
        with files.replacing(folder / "a") as part:
            part.write_text("half")
            raise OSError("full")

    assert refused(half_way) == "full"
    assert [file.name for file in folder.iterdir()] == ["a"]
    assert (folder / "a").read_text() == "old"
    with files.replacing(folder / "a") as part:
        part.write_text("new")
    assert (folder / "a").read_text() == "new"
    mask = os.umask(0)
    os.umask(mask)
    assert (folder / "a").stat().st_mode & 0o777 == 0o666 & ~mask
