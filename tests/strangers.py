"""What strangers may do to the files of a run, drawn by hypothesis."""

import contextlib
import hashlib
import json
import os
import pickle
import shutil

import torch
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load, save

# Written in place of these texts: JSON that ``json.dumps`` would not write.
DEEP, LONG = "a deep list", "a long number"
ODD = [
    *(None, True, False, 0, 1, -1, 0.5, 10**6, 2**31, 2**63, -(2**63), 10**30, 10**400, 1e308, float("nan"), float("-inf")),
    *("", "x", "../../outside", "/dev/zero", "\x1b[31mred\nline\u202e", "x" * 100_000, "\ud800", DEEP, LONG),
    *([], {}, [None], [1], [[1, 2]], {"": None}, {"x": 1}, [10**30], ["x"] * 1000),
]


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def written(value):
    """A value as JSON, with what stands for odd text replaced."""
    return (
        json.dumps(value)
        .replace(json.dumps(DEEP), "[" * 50_000 + "]" * 50_000)
        .replace(json.dumps(LONG), "9" * 50_000)
        .encode()
    )


def changed(draw, value):
    """A value of JSON with another one somewhere in it."""
    nested = isinstance(value, dict | list) and value and draw(st.integers(0, 5))
    if not nested:
        return draw(st.sampled_from(ODD))
    key = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    if isinstance(value, dict) and draw(st.integers(0, 9)) == 0:
        return {name: each for name, each in value.items() if name != key} | ({"more": 1} if draw(st.booleans()) else {})
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[key] = changed(draw, value[key])
    return copied


def other_json(draw, content):
    lines = content.decode().split("\n") if content.count(b"}\n{") else [content.decode()]
    number = draw(st.integers(0, len(lines) - 1))
    lines[number] = written(changed(draw, json.loads(lines[number]))).decode() if lines[number] else "{}"
    return "\n".join(lines).encode()


def other_tensors(draw, content):
    tensors = load(content)
    name = draw(st.sampled_from(sorted(tensors)))
    # Damaged a second time it may be complex already.
    each = tensors[name].real if tensors[name].is_complex() else tensors[name]
    others = {
        "fewer": None,
        "flat": each.reshape(-1)[:1],
        "empty": torch.zeros(0),
        "more": torch.zeros(*each.shape, 2),
        "double": each.double(),
        "complex": torch.complex(each.float(), each.float()),
        "bytes": each.to(torch.uint8),
        "half": each.bfloat16(),
        "not numbers": torch.full_like(each, torch.nan) if each.is_floating_point() else each,
    }
    other = others[draw(st.sampled_from(sorted(others)))]
    tensors = {key: value for key, value in tensors.items() if key != name} | ({} if other is None else {name: other})
    return save(tensors | ({"more": torch.zeros(3)} if draw(st.integers(0, 5)) == 0 else {}))


def other_header(draw, content):
    """The header of safetensors says something else."""
    size = int.from_bytes(content[:8], "little")
    header = written(changed(draw, json.loads(content[8 : 8 + size])))
    length = draw(st.sampled_from([len(header), len(header), 2**31, 2**63]))
    return length.to_bytes(8, "little") + header + content[8 + size :]


def flipped(draw, content):
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 8))):
        content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(content)


def cut(draw, content):
    return content[: draw(st.integers(0, len(content)))]


def change_content(draw, path, payload):
    content = path.read_bytes()
    if not content:
        return
    ways = [flipped, cut, lambda draw, content: pickle.dumps(Payload(payload))]
    if path.suffix in (".json", ".jsonl"):
        ways = [other_json] * 5 + ways
    if path.suffix == ".safetensors":
        ways = [other_tensors] * 3 + [other_header] * 2 + ways
    # What is damaged already may be no JSON and no tensors any more.
    with contextlib.suppress(ValueError, SafetensorError):
        path.write_bytes(draw(st.sampled_from(ways))(draw, content))
    if path.parent.parent.name == "checkpoints" and path.name != "checksums.json" and draw(st.integers(0, 4)):
        seal(path.parent)


def seal(checkpoint):
    """Whoever changes a checkpoint can write its checksums, too."""
    names = ("tensors.safetensors", "state.json")
    checksums = {name: hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() for name in names}
    (checkpoint / "checksums.json").write_text(json.dumps(checksums))


def replace_by(draw, path, outside):
    """Something else under the name of a file or a folder."""
    elsewhere = outside / path.name
    if path.is_dir():
        shutil.move(path, elsewhere)
    else:
        elsewhere.write_bytes(path.read_bytes())
        path.unlink()
    kinds = {
        "link": lambda: path.symlink_to(elsewhere),
        "endless link": lambda: path.symlink_to(path),
        "link to nothing": lambda: path.symlink_to(outside / "nothing"),
        "folder": lambda: path.mkdir(),
        "pipe": lambda: os.mkfifo(path),
        "nothing": lambda: None,
        "file": lambda: path.write_text("x"),
    }
    kinds[draw(st.sampled_from(sorted(kinds)))]()


def add_unknown(draw, folder):
    names = ["more.json", ".lock", "weights.safetensors.new", "checkpoints/00000099", "checkpoints/²", "\x1b[31m", "model.pkl"]
    path = folder / draw(st.sampled_from(names))
    if not os.path.lexists(path):
        draw(
            st.sampled_from([lambda: path.write_text("x"), path.mkdir, lambda: path.symlink_to("/"), lambda: os.mkfifo(path)])
        )()


def damage(draw, folder, outside, payload):
    """One or two changes to a run folder."""
    for _ in range(draw(st.integers(1, 2))):
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        way = draw(st.sampled_from(["content"] * 6 + ["replace", "replace a folder", "swap", "unknown"]))
        if way == "content":
            change_content(draw, draw(st.sampled_from(paths)), payload)
        elif way == "replace":
            replace_by(draw, draw(st.sampled_from(paths)), outside)
        elif way == "replace a folder":
            inner = [each for each in (folder / "evaluations", folder / "checkpoints", folder / "figures") if each.is_dir()]
            if inner := [each for each in inner if not each.is_symlink() and not (outside / each.name).exists()]:
                replace_by(draw, draw(st.sampled_from(inner)), outside)
        elif way == "swap":
            one, other = draw(st.sampled_from(paths)), draw(st.sampled_from(paths))
            contents = one.read_bytes(), other.read_bytes()
            one.write_bytes(contents[1])
            other.write_bytes(contents[0])
        else:
            add_unknown(draw, folder)
