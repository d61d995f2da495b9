import pytest
import yaml

from ddcnn.config import Config, assign, read_yaml
from ddcnn.errors import ConfigError
from ddcnn.recipes import RECIPES


def test_yaml_gives_back_an_equal_configuration(tmp_path):
    config = Config.parse(
        {
            "seed": 3,
            "out": "runs/x",
            "decomposition": {"grid": "1x3", "overlap": 2},
            "training": {"milestones": [0.3, 0.9], "patience": 2, "subdomains": {3: {"lr": 0.05}}, "clip_norm": 2},
            "model": {"options": {"batch_norm": False}},
        }
    )
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert Config.read(path) == config


@pytest.mark.parametrize("name", RECIPES)
def test_what_the_user_sets_wins_over_the_recipe(name):
    recipe = RECIPES[name]()
    config = Config.parse({"recipe": name, "training": {"lr": 0.7}})
    assert config.training.lr == 0.7
    assert config.training.epochs == recipe["training"]["epochs"]
    assert config.training.schedule == recipe["training"]["schedule"]


def test_the_paper_recipe_is_as_published_where_that_is_known():
    config = Config.parse({"recipe": "paper"})
    assert (config.training.optimizer, config.training.lr, config.training.epochs) == ("adam", 1e-3, 150)
    assert (config.aggregation.features, config.aggregation.shortcut) == ("probability", False)
    assert config.coherent.local_weight == 0


def test_a_saved_configuration_does_not_follow_a_changed_recipe(monkeypatch):
    saved = yaml.safe_load(Config().to_yaml())
    monkeypatch.setitem(RECIPES, "fast", lambda: {"training": {"lr": 9.0}, "aggregation": {"lr": 9.0}})
    assert Config.parse(saved) == Config.parse(saved | {"recipe": "paper"}).model_copy(update={"recipe": "fast"})
    assert Config.parse(saved).training.lr is None  # auto, not 9


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"epoch": 3}}, "training.epoch is not a field .* did you mean 'epochs'"),
        ({"modle": {}}, "modle is not a field .* did you mean 'model'"),
        ({"training": {"epochs": 0}}, "training.epochs = 0 is not valid: .* greater than or equal to 1"),
        ({"training": {"lr": float("nan")}}, "training.lr = nan is not valid"),
        ({"recipe": "fst"}, "recipe = 'fst' is unknown: did you mean 'fast'"),
        ({"decomposition": {"grid": "2xa"}}, "decomposition.grid"),
        ({"training": 3}, "training = 3 is not valid"),
        ({"training": {"clip_norm": 0}}, "training.clip_norm = 0 is not valid: .* greater than 0"),
        ({"training": {"subdomains": {2: {"lrr": 1}}}}, "^training.subdomains.2.lrr is not a field .* mean 'lr'"),
        ({"training": {"subdomains": {2: {"lr": -1}}}}, "^training.subdomains.2.lr = -1 is not valid: .* than 0"),
        ({"training": {"subdomains": {"x": {"lr": 1}}}}, "^training.subdomains.x = 'x' is not valid: .* integer"),
        ({"training": {"subdomains": {2: 0.1}}}, "^training.subdomains.2 = 0.1 is not valid"),
        ({"training": {"subdomains": 0.1}}, "^training.subdomains = 0.1 is not valid"),
    ],
)
def test_a_bad_value_is_named_in_one_line(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Config.parse(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["training.lr", "=3", "training.lr.x=1"])
def test_a_bad_assignment_says_how_it_should_look(text):
    with pytest.raises(ConfigError, match="--set"):
        assign({"training": {"lr": 1}}, text)


def test_a_section_is_set_field_by_field():
    values = {"training": {"epochs": 3, "milestones": [0.5]}}
    assign(values, "training={lr: 0.1, milestones: [0.7]}")
    assert values == {"training": {"epochs": 3, "milestones": [0.7], "lr": 0.1}}
    with pytest.raises(ConfigError, match="'lr' is there twice"):
        assign(values, "training={lr: 0.1, lr: 0.2}")


def test_a_field_that_is_a_mapping_is_set_whole():
    """Else labels of other classes would stay."""
    values = {"data": {"classes": {"ill": ["CT-2"]}}}
    assign(values, "data.classes={a: [x]}")
    assert values == {"data": {"classes": {"a": ["x"]}}}


def test_a_merge_of_yaml_may_be_overridden(tmp_path):
    (tmp_path / "config.yaml").write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\n")
    assert read_yaml(tmp_path / "config.yaml")["b"] == {"x": 3, "y": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "should hold a mapping"),
        ("a: [", "not valid YAML"),
        ("training:\n  lr: 1\nseed: 2\ntraining:\n  epochs: 3\n", "'training' is there twice, in lines 1 and 4; leave"),
        ("training: {epochs: 2, epochs: 4}", "'epochs' is there twice, in line 1; leave one out"),
        ("a:\n- b: {c: 1, d: 2, c: 1}", "'c' is there twice"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_yaml(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "absent.yaml")


def test_what_a_subdomain_has_of_its_own(tmp_path):
    """Its index is a number in Python and in YAML, and text in ``--set`` and in a saved configuration."""
    (tmp_path / "a.yaml").write_text("training: {lr: 0.2, subdomains: {3: {lr: 0.05}, 1: {weight_decay: 0.0}}}")
    values = read_yaml(tmp_path / "a.yaml")
    assign(values, "training.subdomains.3.weight_decay=0.5")
    (tmp_path / "b.yaml").write_text(Config.parse(values).to_yaml())
    config = Config.read(tmp_path / "b.yaml", {"training": {"subdomains": {1: {"lr": 0.01}}}}).training
    own = [config.of(index) for index in range(4)]
    assert [c.lr for c in own] == [0.2, 0.01, 0.2, 0.05]
    assert [c.weight_decay for c in own] == [config.weight_decay, 0.0, config.weight_decay, 0.5]
    assert {c.epochs for c in own} == {config.epochs}
