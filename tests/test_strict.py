import pytest
import yaml

from ddcnn.strict import parse_json, parse_yaml

LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 12))
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{f'*a{n - 1}, ' * 9}]}}\n" for n in range(1, 12))

YAML = {
    "!!python/object/apply:os.system ['echo hacked > hacked']": "could not determine a constructor for the tag",
    "!!python/name:os.system": "could not determine a constructor",
    "!!python/object/new:subprocess.Popen [[ls]]": "could not determine a constructor",
    LAUGHS: "more than 100,000 values, those that aliases repeat counted",
    MERGES: "more than 100,000 values",
    "a: &a [*a]": "more than 100,000 values",
    "a: &a {<<: *a}": "more than 100,000 values",
    "[" * 700: "nested too deeply",
    "? " * 700: "nested too deeply",
    "- " * 700: "nested too deeply",
    "a: " + "1" * 5000: "a value has 5,000 characters",
    "a: " + "1:" * 3000 + "1": "a value has 6,001 characters",
    "a: b\n" * 250_000: "it has 1,250,000 characters, at most 1,048,576",
    "a: [": "expected the node content",
    "a:\n- 010": "010 in line 2 means 8 to some",
    "a: -1:30.5": "means -90.5 to some",
    "a: 2026-99-99": "month must be in 1..12",
    "a: !!bool x": "x",
    "a: !!timestamp x": "NoneType",
    "a: !!int ''": "index out of range",
    "a: !!float x": "could not convert",
    "a: 1\n---\nb: 1": "expected a single document",
    "a: \x07": "special characters are not allowed",
}


@pytest.mark.parametrize("text", YAML, ids=range(len(YAML)))
def test_yaml_that_is_not_plain(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=YAML[text]) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_plain_yaml_and_few_aliases():
    text = "a: &x [1, 0.5, true, null, text, 2026-01-02]\nb: *x\nc: {<<: {d: 1}, e: 0x10}\n"
    text += "f: [0, -0.0, 00, '010', 0.010]\n"
    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml("") is None


def test_json():
    assert parse_json('{"a": [1, 0.5, null]}') == {"a": [1, 0.5, None]}
    with pytest.raises(ValueError, match="NaN is not a number"):
        parse_json("[NaN]")
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)


@pytest.mark.parametrize("text", ["1e999", "[-1e400]", '{"a": 1e309}'])
def test_a_number_that_is_infinite_when_read_is_refused(text):
    with pytest.raises(ValueError, match="is too large a number"):
        parse_json(text)
    assert parse_json("[1e308, -2.5]") == [1e308, -2.5]
