import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dsts_ray.data.formats import csv, diving48, folder, ssv2
from dsts_ray.data.formats.annotations import Annotations
from dsts_ray.errors import ConfigError, DataError


def rows_of(annotations: Annotations) -> list[dict[str, Any]]:
    return annotations.table.to_pylist()


def column(annotations: Annotations, name: str) -> list[Any]:
    return annotations.table[name].to_pylist()


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_diving48(root: Path, *, label: object = 1, version: str = "V2_") -> None:
    item = {"vid_name": "VNvb5o_OLpLg_00003", "label": label, "start_frame": 2, "end_frame": 99}
    write_json(root / f"Diving48_{version}train.json", [item])
    item = {"vid_name": "other_00000", "label": 0, "start_frame": 0, "end_frame": 50}
    write_json(root / f"Diving48_{version}test.json", [item])
    write_json(
        root / "Diving48_vocab.json",
        [["Back", "15som", "05Twis", "FREE"], ["Forward", "Dive", "NoTwis", "STR"]],
    )


def test_diving48(tmp_path: Path) -> None:
    write_diving48(tmp_path)
    annotations = diving48.read_annotations(str(tmp_path))
    assert annotations.classes == ("Back+15som+05Twis+FREE", "Forward+Dive+NoTwis+STR")
    assert annotations.lists == tuple(
        f"{tmp_path}/Diving48_V2_{split}.json" for split in ("train", "test")
    )
    assert annotations.folder == f"{tmp_path}/rgb"
    first, second = rows_of(annotations)
    assert first == {
        "video_id": "VNvb5o_OLpLg_00003",
        "split": "train",
        "label": 1,
        "group": "VNvb5o_OLpLg",
        "path": f"{tmp_path}/rgb/VNvb5o_OLpLg_00003.mp4",
        "start_frame": 2,
        "end_frame": 99,
        "fault": None,
    }
    assert (second["split"], second["group"]) == ("test", "other")


def test_diving48_v1_is_read_where_v2_is_not_or_by_name(tmp_path: Path) -> None:
    write_diving48(tmp_path, version="", label=0)
    assert column(diving48.read_annotations(str(tmp_path)), "label") == [0, 0]
    write_diving48(tmp_path, label=1)
    root = str(tmp_path)
    assert column(diving48.read_annotations(root), "label") == [1, 0]
    assert column(diving48.read_annotations(root, "v2"), "label") == [1, 0]
    assert column(diving48.read_annotations(root, "v1"), "label") == [0, 0]
    with pytest.raises(ConfigError, match="version 'v3' of Diving48: choose one of v1, v2"):
        diving48.read_annotations(root, "v3")  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match=r"Diving48_vocab\.json: there is no such file"):
        diving48.read_annotations(str(tmp_path / "empty"))


@pytest.mark.parametrize("label", [2, -1, "1", None, True])
def test_diving48_label_outside_the_vocabulary_is_a_fault(tmp_path: Path, label: object) -> None:
    write_diving48(tmp_path, label=label)
    first, second = rows_of(diving48.read_annotations(str(tmp_path)))
    assert first["label"] == -1
    assert first["fault"] == f"label {label!r} is outside the vocabulary, allowed are 0 to 1"
    assert second["fault"] is None


@pytest.mark.parametrize("name", ["V2_train", "V2_test", "vocab"])
def test_diving48_broken_files_are_named(tmp_path: Path, name: str) -> None:
    write_diving48(tmp_path)
    path = tmp_path / f"Diving48_{name}.json"
    path.write_text("[{")
    with pytest.raises(DataError, match=rf"{name}\.json is not valid JSON"):
        diving48.read_annotations(str(tmp_path))
    path.write_text('[{"vid_name": "a"}]')
    with pytest.raises(DataError, match=rf"{name}\.json.*(lacks label|list of lists)"):
        diving48.read_annotations(str(tmp_path))
    path.unlink()
    with pytest.raises(DataError, match=rf"{name}\.json: there is no such file; --root"):
        diving48.read_annotations(str(tmp_path))


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
    annotations = ssv2.read_annotations(str(tmp_path))
    assert annotations.classes == ("Turning something", "Holding something next to something")
    assert column(annotations, "split") == ["train", "val", "test", "test"]
    assert column(annotations, "label") == [1, 0, *test_labels]
    assert column(annotations, "fault") == [None] * 4
    assert annotations.folder == f"{tmp_path}/20bn-something-something-v2"
    assert len(annotations.lists) == (4 if naming == "qualcomm" else 3)
    first = rows_of(annotations)[0]
    assert first["path"] == f"{annotations.folder}/78687.webm"
    assert first["group"] == first["video_id"] == "78687"
    assert (first["start_frame"], first["end_frame"]) == (0, None)


def test_ssv2_class_outside_the_vocabulary_is_a_fault(tmp_path: Path) -> None:
    write_ssv2(tmp_path, template="Eating [something]", naming="qualcomm")
    (tmp_path / "labels" / "test-answers.csv").write_text("9;Sleeping\n")
    annotations = ssv2.read_annotations(str(tmp_path))
    assert column(annotations, "label") == [-1, 0, -1, -1]
    eating, none, _, sleeping = column(annotations, "fault")
    assert eating == "class 'Eating something' is outside the vocabulary of 2 classes"
    assert none is None
    assert "'Sleeping'" in sleeping


def test_ssv2_broken_files_are_named(tmp_path: Path) -> None:
    write_ssv2(tmp_path)
    (tmp_path / "something-something-v2-labels.json").write_text('{"a": "0", "b": "2"}')
    with pytest.raises(DataError, match=r"labels\.json must number its 2 classes"):
        ssv2.read_annotations(str(tmp_path))
    (tmp_path / "something-something-v2-labels.json").unlink()
    with pytest.raises(DataError, match=r"labels\.json: there is no such file"):
        ssv2.read_annotations(str(tmp_path))
    write_ssv2(tmp_path, naming="qualcomm")
    (tmp_path / "labels" / "test-answers.csv").write_text("8,Turning something\n")
    with pytest.raises(DataError, match=r"test-answers\.csv: line 1 must be 'id;class'"):
        ssv2.read_annotations(str(tmp_path))


def write_list(place: Path, *lines: str, name: str = "list.csv") -> Path:
    path = place / name
    path.write_text("\n".join(lines) + "\n")
    return path


def read_list(place: Path, *lines: str) -> Annotations:
    return csv.read_annotations(str(write_list(place, *lines)))


@pytest.mark.parametrize("header", [(), ("path,label",), ("Path, Label",)])
def test_csv_class_names_are_sorted(tmp_path: Path, header: tuple[str, ...]) -> None:
    annotations = read_list(
        tmp_path, *header, "b/1.mp4,run", "", '"a, 2.mp4",jump', "/abs/my dog 3.mp4,run"
    )
    assert annotations.classes == ("jump", "run")
    assert column(annotations, "label") == [1, 0, 1]
    assert column(annotations, "video_id") == ["b/1.mp4", "a, 2.mp4", "/abs/my dog 3.mp4"]
    assert column(annotations, "path") == [
        f"{tmp_path}/b/1.mp4",
        f"{tmp_path}/a, 2.mp4",
        "/abs/my dog 3.mp4",
    ]


def test_csv_urls_stay_as_they_are(tmp_path: Path) -> None:
    annotations = read_list(tmp_path, "s3://bucket/a.mp4,0", "file:///abs/b.mp4,0", "c.mp4,0")
    expected = ["s3://bucket/a.mp4", "/abs/b.mp4", f"{tmp_path}/c.mp4"]
    assert column(annotations, "path") == expected


def test_csv_integer_labels_are_the_indices(tmp_path: Path) -> None:
    annotations = read_list(tmp_path, "a.mp4,3", "b.mp4,0", "c.mp4,-2")
    assert column(annotations, "label") == [3, 0, -1]
    assert annotations.classes == ("0", "1", "2", "3")
    assert column(annotations, "fault")[:2] == [None, None]
    assert "label -2 is negative" in column(annotations, "fault")[2]


def test_csv_split_column(tmp_path: Path) -> None:
    lines = ("path,label,split", "a.mp4,x,val", "b.mp4,x,train", "c.mp4,y,test")
    assert column(read_list(tmp_path, *lines), "split") == ["val", "train", "test"]


def test_csv_lists_of_mmaction2_and_videomae(tmp_path: Path) -> None:
    annotations = read_list(tmp_path, "a/1.mp4 7", "my dog, no: cat.webm\t0".replace(",", ""))
    assert column(annotations, "video_id") == ["a/1.mp4", "my dog no: cat.webm"]
    assert column(annotations, "label") == [7, 0]
    named = read_list(tmp_path, "a b 1.mp4 run", "c.mp4 jump")
    assert column(named, "video_id") == ["a b 1.mp4", "c.mp4"]
    assert named.classes == ("jump", "run")
    three_words = read_list(tmp_path, "a.mp4 12 3", "dog 2.mp4 3")
    assert column(three_words, "video_id") == ["a.mp4 12", "dog 2.mp4"]


def test_csv_lists_of_tsm_name_no_suffix(tmp_path: Path) -> None:
    (tmp_path / "78687.webm").touch()
    (tmp_path / "7.mp4").touch()
    annotations = read_list(tmp_path, "78687 45 19", "7 30 0", "8 30 0")
    assert column(annotations, "video_id") == ["78687", "7", "8"]
    assert column(annotations, "label") == [19, 0, 0]
    expected = [f"{tmp_path}/78687.webm", f"{tmp_path}/7.mp4", f"{tmp_path}/8"]
    assert column(annotations, "path") == expected


def test_csv_paths_are_relative_to_the_folder_of_videos(tmp_path: Path) -> None:
    """As with mmaction2's data_prefix; TSM's names get their suffix there."""
    (tmp_path / "videos" / "a").mkdir(parents=True)
    (tmp_path / "videos" / "a" / "1.webm").touch()
    (tmp_path / "lists").mkdir()
    listing = write_list(tmp_path / "lists", "a/1 30 0", "/abs/2.mp4 40 1", name="train.txt")
    for root in (listing, listing.parent):
        annotations = csv.read_annotations(str(root), videos=str(tmp_path / "videos"))
        paths = annotations.table["path"].to_pylist()
        assert paths == [str(tmp_path / "videos" / "a" / "1.webm"), "/abs/2.mp4"]
        assert annotations.table["video_id"].to_pylist() == ["a/1", "/abs/2.mp4"]


def test_csv_folder_of_lists(tmp_path: Path) -> None:
    write_list(tmp_path, "a.mp4 b", name="sthv2_train_list_videos.txt")
    write_list(tmp_path, "b.mp4,a", name="validation.csv")
    write_list(tmp_path, "not read", name="training_notes.txt")
    annotations = csv.read_annotations(str(tmp_path))
    assert annotations.classes == ("a", "b")
    assert column(annotations, "split") == ["train", "val"]
    assert column(annotations, "label") == [1, 0]
    assert column(annotations, "path") == [f"{tmp_path}/a.mp4", f"{tmp_path}/b.mp4"]
    write_list(tmp_path, "b.mp4,a", name="val.txt")
    with pytest.raises(DataError, match="lists of the split 'val': leave one"):
        csv.read_annotations(str(tmp_path))
    (tmp_path / "val.txt").unlink()
    write_list(tmp_path, "b.mp4,a,test", name="validation.csv")
    with pytest.raises(DataError, match=r"validation\.csv: its name states the split"):
        csv.read_annotations(str(tmp_path))


def test_csv_draws_a_fifth_of_each_class_and_at_least_one_of_two(tmp_path: Path) -> None:
    sizes = {"one": 1, "two": 2, "nine": 9, "twenty": 20}
    lines = [f"{name}{index}.mp4,{name}" for name, size in sizes.items() for index in range(size)]
    annotations = read_list(tmp_path, *lines)
    held_out = Counter(
        annotations.classes[row["label"]] for row in rows_of(annotations) if row["split"] == "val"
    )
    assert held_out == {"two": 1, "nine": 1, "twenty": 4}
    assert set(column(annotations, "split")) == {"train", "val"}


def test_csv_split_does_not_depend_on_order_or_folder(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    lines = [f"{index}.mp4,{index % 2}" for index in range(20)]
    splits = [
        dict(zip(column(listed, "video_id"), column(listed, "split"), strict=True))
        for listed in (
            read_list(tmp_path, *lines),
            read_list(tmp_path / "other", *reversed(lines)),
        )
    ]
    assert splits[0] == splits[1]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((), "lists no video"),
        (("path,label",), "lists no video"),
        (("a.mp4",), "one is 'a.mp4'"),
        (("a.mp4,1", "b.mp4 1"), "or no line must have a comma; one is 'b.mp4 1'"),
        (("a.mp4,1", "b.mp4,1,val"), "one is 'b.mp4,1,val'"),
        (("a.mp4,",), "one is 'a.mp4,'"),
        (("a.mp4,0,dev",), "unknown split 'dev', allowed are train, val, test"),
    ],
)
def test_csv_bad_lists(tmp_path: Path, lines: tuple[str, ...], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_list(tmp_path, *lines)


def test_csv_wants_a_text_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no list of videos"):
        csv.read_annotations(str(tmp_path))
    path = tmp_path / "video.mp4"
    path.write_bytes(b"\x00\xff\xfe" * 100)
    with pytest.raises(DataError, match="not a text file"):
        csv.read_annotations(str(path))


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folder_of_classes(tmp_path: Path) -> None:
    names = ("run/1.mp4", "run/2.WEBM", "jump/deeper/my 3.mkv")
    touch(*(tmp_path / name for name in (*names, "run/notes.txt", "run/.hidden.mp4")))
    annotations = folder.read_annotations(str(tmp_path))
    assert annotations.classes == ("jump", "run")
    assert column(annotations, "video_id") == ["jump/deeper/my 3.mkv", "run/1.mp4", "run/2.WEBM"]
    assert column(annotations, "label") == [0, 1, 1]
    assert sorted(column(annotations, "split")) == ["train", "train", "val"]
    assert column(annotations, "path")[0] == f"{tmp_path}/jump/deeper/my 3.mkv"


def test_folder_of_splits(tmp_path: Path) -> None:
    touch(
        *(tmp_path / f"{split}/{name}/1.mp4" for split in ("train", "validation") for name in "ab")
    )
    annotations = folder.read_annotations(str(tmp_path))
    assert annotations.classes == ("a", "b")
    assert column(annotations, "split") == ["train", "train", "val", "val"]
    assert column(annotations, "label") == [0, 1, 0, 1]
    touch(tmp_path / "train" / "2.mp4")
    with pytest.raises(DataError, match=r"ROOT/SPLIT/CLASS/video.*train/2\.mp4 lies in none"):
        folder.read_annotations(str(tmp_path))


def test_folder_without_videos(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ROOT/CLASS/video.*there is no such file"):
        folder.read_annotations(str(tmp_path))
    touch(tmp_path / "1.mp4")
    with pytest.raises(DataError, match=r"1\.mp4 lies in none"):
        folder.read_annotations(str(tmp_path))
