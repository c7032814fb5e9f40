import json
from collections import Counter
from pathlib import Path

import pytest

from dsts_ray.data.formats import csv, diving48, ssv2
from dsts_ray.errors import DataError


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_diving48(root: Path, *, label: int = 1) -> None:
    item = {"vid_name": "VNvb5o_OLpLg_00003", "label": label, "start_frame": 2, "end_frame": 99}
    write_json(root / "Diving48_V2_train.json", [item])
    item = {"vid_name": "other_00000", "label": 0, "start_frame": 0, "end_frame": 50}
    write_json(root / "Diving48_V2_test.json", [item])
    write_json(
        root / "Diving48_vocab.json",
        [["Back", "15som", "05Twis", "FREE"], ["Forward", "Dive", "NoTwis", "STR"]],
    )


def test_diving48(tmp_path: Path) -> None:
    write_diving48(tmp_path)
    rows, classes = diving48.read_annotations(tmp_path)
    assert classes == ("Back+15som+05Twis+FREE", "Forward+Dive+NoTwis+STR")
    first = ("VNvb5o_OLpLg_00003", "train", 1, "VNvb5o_OLpLg")
    assert rows[0] == (*first, tmp_path / "rgb" / "VNvb5o_OLpLg_00003.mp4", 2, 99)
    assert (rows[1].split, rows[1].group) == ("test", "other")


@pytest.mark.parametrize("label", [2, -1])
def test_diving48_label_outside_the_vocabulary(tmp_path: Path, label: int) -> None:
    write_diving48(tmp_path, label=label)
    with pytest.raises(DataError, match=rf"train\.json: label {label} of 'VNvb.*0 to 1"):
        diving48.read_annotations(tmp_path)


@pytest.mark.parametrize("name", ["V2_train", "V2_test", "vocab"])
def test_diving48_broken_files_are_named(tmp_path: Path, name: str) -> None:
    write_diving48(tmp_path)
    path = tmp_path / f"Diving48_{name}.json"
    path.write_text("[{")
    with pytest.raises(DataError, match=rf"{name}\.json is not valid JSON"):
        diving48.read_annotations(tmp_path)
    path.write_text('[{"vid_name": "a"}]')
    with pytest.raises(DataError, match=rf"{name}\.json.*(lacks label|list of lists)"):
        diving48.read_annotations(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=rf"{name}\.json is missing"):
        diving48.read_annotations(tmp_path)


def write_ssv2(
    root: Path, *, naming: str = "20bn", template: str = "Holding [something] next to [something]"
) -> None:
    prefix = root / "something-something-v2-" if naming == "20bn" else root / "labels" / "_"
    prefix = str(prefix).removesuffix("_")
    vocabulary = {"Turning something": "0", "Holding something next to something": "1"}
    write_json(Path(f"{prefix}labels.json"), vocabulary)
    item = {"id": "78687", "label": "turning potato", "template": template}
    write_json(Path(f"{prefix}train.json"), [{**item, "placeholders": ["potato", "bottle"]}])
    item = {"id": "7", "label": "turning a pen", "template": "Turning [something]"}
    write_json(Path(f"{prefix}validation.json"), [{**item, "placeholders": ["a pen"]}])
    write_json(Path(f"{prefix}test.json"), [{"id": "8"}, {"id": "9"}])
    if naming == "qualcomm":
        (root / "labels" / "test-answers.csv").write_text("8;Turning something\n")


@pytest.mark.parametrize(("naming", "test_labels"), [("20bn", [-1, -1]), ("qualcomm", [0, -1])])
def test_ssv2_in_both_namings(tmp_path: Path, naming: str, test_labels: list[int]) -> None:
    write_ssv2(tmp_path, naming=naming)
    rows, classes = ssv2.read_annotations(tmp_path)
    assert classes == ("Turning something", "Holding something next to something")
    assert [row.split for row in rows] == ["train", "val", "test", "test"]
    assert [row.label for row in rows] == [1, 0, *test_labels]
    assert rows[0].path == tmp_path / "20bn-something-something-v2" / "78687.webm"
    assert rows[0].group == rows[0].video_id == "78687"
    assert (rows[0].start_frame, rows[0].end_frame) == (0, None)


def test_ssv2_template_outside_the_vocabulary(tmp_path: Path) -> None:
    write_ssv2(tmp_path, template="Eating [something]")
    with pytest.raises(DataError, match="class 'Eating something' of video 78687 is outside"):
        ssv2.read_annotations(tmp_path)


def test_ssv2_broken_files_are_named(tmp_path: Path) -> None:
    write_ssv2(tmp_path)
    (tmp_path / "something-something-v2-labels.json").write_text('{"a": "0", "b": "2"}')
    with pytest.raises(DataError, match=r"labels\.json must number its 2 classes"):
        ssv2.read_annotations(tmp_path)
    (tmp_path / "something-something-v2-labels.json").unlink()
    with pytest.raises(DataError, match=r"labels\.json is missing"):
        ssv2.read_annotations(tmp_path)
    write_ssv2(tmp_path, naming="qualcomm")
    (tmp_path / "labels" / "test-answers.csv").write_text("8,Turning something\n")
    with pytest.raises(DataError, match=r"test-answers\.csv: line 1 must be 'id;class'"):
        ssv2.read_annotations(tmp_path)


def write_list(folder: Path, *lines: str) -> Path:
    path = folder / "list.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("header", [(), ("path,label",), ("Path, Label",)])
def test_csv_class_names_are_sorted(tmp_path: Path, header: tuple[str, ...]) -> None:
    path = write_list(tmp_path, *header, "b/1.mp4,run", "", '"a, 2.mp4",jump', "/abs/3.mp4,run")
    rows, classes = csv.read_annotations(path)
    assert classes == ("jump", "run")
    assert [row.label for row in rows] == [1, 0, 1]
    assert [row.path for row in rows] == [
        tmp_path / "b" / "1.mp4",
        tmp_path / "a, 2.mp4",
        Path("/abs/3.mp4"),
    ]
    assert [row.video_id for row in rows] == ["b/1.mp4", "a, 2.mp4", "/abs/3.mp4"]


def test_csv_integer_labels_are_the_indices(tmp_path: Path) -> None:
    rows, classes = csv.read_annotations(write_list(tmp_path, "a.mp4,3", "b.mp4,0"))
    assert [row.label for row in rows] == [3, 0]
    assert classes == ("0", "1", "2", "3")


def test_csv_split_column(tmp_path: Path) -> None:
    path = write_list(tmp_path, "path,label,split", "a.mp4,x,val", "b.mp4,x,train", "c.mp4,y,test")
    assert [row.split for row in csv.read_annotations(path).rows] == ["val", "train", "test"]


def test_csv_draws_a_fifth_of_each_class_and_at_least_one_of_two(tmp_path: Path) -> None:
    sizes = {"one": 1, "two": 2, "nine": 9, "twenty": 20}
    lines = [f"{name}{index}.mp4,{name}" for name, size in sizes.items() for index in range(size)]
    rows, classes = csv.read_annotations(write_list(tmp_path, *lines))
    held_out = Counter(classes[row.label] for row in rows if row.split == "val")
    assert held_out == {"two": 1, "nine": 1, "twenty": 4}
    assert {row.split for row in rows} == {"train", "val"}


def test_csv_split_does_not_depend_on_order_or_folder(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    lines = [f"{index}.mp4,x" for index in range(12)]
    here = csv.read_annotations(write_list(tmp_path, *lines)).rows
    there = csv.read_annotations(write_list(tmp_path / "other", *reversed(lines))).rows
    assert {row.video_id: row.split for row in here} == {row.video_id: row.split for row in there}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((), "lists no video"),
        (("path,label",), "lists no video"),
        (("a.mp4",), "one is 'a.mp4'"),
        (("a.mp4,1", "b.mp4,1,val"), "one is 'b.mp4,1,val'"),
        (("a.mp4,",), "one is 'a.mp4,'"),
        (("a.mp4,0", "b.mp4,-2"), "label -2 is negative"),
        (("a.mp4,0,dev",), "unknown split 'dev', allowed are train, val, test"),
    ],
)
def test_csv_bad_lists(tmp_path: Path, lines: tuple[str, ...], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        csv.read_annotations(write_list(tmp_path, *lines))


def test_csv_wants_a_text_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a file"):
        csv.read_annotations(tmp_path)
    path = tmp_path / "video.mp4"
    path.write_bytes(b"\x00\xff\xfe" * 100)
    with pytest.raises(DataError, match="not a comma-separated text file"):
        csv.read_annotations(path)
