import json

import pytest

from ddcnn.runs.manifest import Manifest, NewerError

DIGEST = "0123456789abcdef" * 4
MANIFEST = Manifest({"config.yaml": DIGEST, "locals/0.safetensors": DIGEST[::-1]}, ("folds/0",))


def test_what_is_written_is_read():
    assert Manifest.parse(MANIFEST.to_text()) == MANIFEST


def test_the_order_of_the_files_makes_no_difference():
    reverse = Manifest(dict(reversed(MANIFEST.sums.items())), MANIFEST.runs)
    assert reverse.to_text() == MANIFEST.to_text()


def test_every_bit_counts():
    content = MANIFEST.to_text().encode()
    for position in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            with pytest.raises(ValueError):  # noqa: PT011 - some say where JSON or ASCII ends, some that a sum differs
                Manifest.parse(flipped.decode("ascii"))


def test_every_byte_that_is_cut_off_counts():
    text = MANIFEST.to_text()
    for length in range(len(text)):
        with pytest.raises(ValueError):  # noqa: PT011
            Manifest.parse(text[:length])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: json.dumps(json.loads(text)),  # the same values in another form
        lambda text: text + "\n",
        lambda text: text.replace('"version": 2,', '"version": 2, "version": 2,'),
        lambda text: text.replace("config.yaml", "c\\u006fnfig.yaml"),
        lambda text: text.replace('"runs": [', '"more": 1,\n "runs": ['),
    ],
)
def test_there_is_one_form_only(change):
    changed = change(MANIFEST.to_text())
    assert changed != MANIFEST.to_text()
    with pytest.raises(ValueError, match="it is not as it was written"):
        Manifest.parse(changed)


def test_one_of_a_version_to_come_is_called_so():
    with pytest.raises(NewerError, match="it is of version 3, this ddcnn reads 2"):
        Manifest.parse('{"version": 3, "files": []}')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "should be of version 2, got None"),
        ('{"version": 1, "sha256": {}}', "should be of version 2, got 1"),
        ('{"version": 2}', "should hold a SHA-256"),
        ('{"version": 2, "sha256": {"a": 1}, "runs": []}', "should hold a SHA-256"),
        ('{"version": 2, "sha256": {"a": "0"}, "runs": []}', "should hold a SHA-256"),
        ('{"version": 2, "sha256": {}, "runs": [1]}', "should hold a SHA-256"),
        ('{"version": 2, "sha256": {}, "runs": {}}', "should hold a SHA-256"),
    ],
)
def test_other_values(text, message):
    with pytest.raises(ValueError, match=message):
        Manifest.parse(text)


def test_entries_come_and_go():
    more = MANIFEST.with_sum("report.html", DIGEST)
    assert set(more.sums) == {*MANIFEST.sums, "report.html"}
    assert more.without("report.html") == MANIFEST == MANIFEST.without("report.html")
