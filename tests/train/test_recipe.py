"""Fields of a recipe: those of TRL's users, checked by name, from the file and from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from bird_hf.train import run
from bird_hf.train.recipe import read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
LAUNCHERS = {"fsdp"}  # read by `accelerate launch --config_file`
OWN_RECIPES = [path for path in sorted(RECIPES.glob("*.yaml")) if path.stem not in LAUNCHERS]

pytestmark = pytest.mark.usefixtures("own_folder")


def test_arguments_override_the_recipe(write_recipe, tmp_path, new_model):
    path = write_recipe(tmp_path, new_model=new_model, text_weight=0.5, lora_r=4)
    options = ["--max_steps", "7", "--text_weight", "0.25", "--dataset_config", "vg", "--lora_alpha=3"]
    recipe = run.read(["--config", str(path), *options])
    assert (recipe.training.max_steps, recipe.training.text_weight) == (7, 0.25)
    assert recipe.script.dataset_config == "vg"
    assert recipe.training.new_model == new_model
    assert (recipe.model.lora_r, recipe.model.lora_alpha) == (4, 3)


@pytest.mark.parametrize("path", OWN_RECIPES, ids=lambda path: path.stem)
def test_recipes_of_the_repository_can_be_read(path, tmp_path):
    recipe = run.read(["--config", str(path), "--output_dir", str(tmp_path), "--use_cpu", "true"])
    assert recipe.script.dataset_name and recipe.script.dataset_config == "chat"
    assert recipe.training.logging_steps and recipe.training.report_to == []
    assert bool(recipe.model.model_name_or_path) != bool(getattr(recipe.training, "new_model", None))


def test_without_a_file_the_arguments_are_the_recipe(tmp_path):
    options = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--model_name_or_path", "bird"]
    assert read_recipe(options).model.model_name_or_path == "bird"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("learning_rte", r"did you mean learning_rate\?"),
        ("model_name_or_pth", r"did you mean model_name_or_path\?"),
        ("freeze_visoin", r"did you mean freeze_vision\?"),
        ("max_step", r"did you mean max_steps\?"),  # no abbreviations
        ("xyzzy", "see recipes/"),
        ("model", "it is now called model_name_or_path"),
        ("data", "it is now called dataset_name"),
        ("data_config", "it is now called dataset_config"),
        ("digit_weights", "it was removed"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_one(write_recipe, tmp_path, name, advice):
    plain = str(write_recipe(tmp_path / "plain"))
    misspelt = str(write_recipe(tmp_path / "misspelt", **{name: 1}))
    for arguments in (
        ["--config", misspelt],
        ["--config", plain, f"--{name}", "1"],
        ["--config", plain, f"--{name}=1"],
    ):
        with pytest.raises(ValueError, match=f"^{name} is not a field of a recipe; {advice}") as error:
            run.read(arguments)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("number_spread", "it is now called coordinate_label_sigma"),
        ("slot_loss_weight", "it is now called detection_loss_weight"),
        ("look_loss_weight", "it is now called attention_loss_weight"),
        ("slot_warmup_steps", "it is now called stages: "),
        ("text_model", "it was removed"),
        ("question_warmup_steps", "it was removed"),
    ],
)
def test_an_old_field_of_a_new_model_is_refused(write_recipe, tmp_path, new_model, name, advice):
    path = write_recipe(tmp_path, new_model=new_model, **{name: 1})
    with pytest.raises(ValueError, match=f"^{name} is not a field of a recipe; {advice}"):
        run.read(["--config", str(path)])


def test_fields_of_a_new_model_can_fine_tune_one(write_recipe, tmp_path):
    recipe = run.read(["--config", str(write_recipe(tmp_path, coordinate_label_sigma=6.0))])
    assert recipe.training.coordinate_label_sigma == 6.0 and recipe.training.new_model is None


def test_a_value_of_the_wrong_type_is_one_line(write_recipe, tmp_path):
    path = write_recipe(tmp_path)
    with pytest.raises(ValueError, match=r"argument --max_steps.*: invalid int value: 'many'") as error:
        run.read(["--config", str(path), "--max_steps", "many"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"deepspeed": "zero2.json"}, r"deepspeed needs DeepSpeed; .*pip install -e \".\[deepspeed\]\""),
        ({"report_to": "wandb"}, "report_to: wandb needs pip install wandb"),
        ({"report_to": "tensorboard"}, "report_to: tensorboard needs pip install tensorboard"),
    ],
)
def test_what_is_not_installed_is_named_with_its_remedy(write_recipe, tmp_path, monkeypatch, fields, said):
    monkeypatch.setattr("bird_hf.train.recipe.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=said) as error:
        run.read(["--config", str(write_recipe(tmp_path, **fields))])
    assert "\n" not in str(error.value)


def test_the_configuration_of_fsdp_is_one_that_accelerate_reads():
    config = load_config_from_file(str(RECIPES / "fsdp.yaml"))
    assert config.distributed_type == "FSDP" and config.fsdp_config["fsdp_version"] == 2


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([], "the last takes those that remain"),
        ([{"train": "vision", "steps": 2}], "the last takes those that remain"),
        ([{"train": "vision"}, {"train": "answers"}], "every stage but the last sets `steps`"),
        ([{"train": "sight", "steps": 2}, {"train": "answers"}], "train is vision or answers, not sight"),
        ([{"train": "vision", "steps": 0}, {"train": "answers"}], "steps is 0, but must be at least 1"),
        (
            [{"train": "vision", "step": 2}, {"train": "answers"}],
            r"step is not a field .* did you mean steps\?",
        ),
    ],
)
def test_stages_that_cannot_be_run_are_refused(write_recipe, tmp_path, new_model, stages, said):
    path = write_recipe(tmp_path, new_model=new_model, detection_loss_weight=1.0, stages=stages)
    with pytest.raises(ValueError, match=f"stages: .*{said}"):
        run.read(["--config", str(path)])


def test_losses_that_need_others_are_refused(write_recipe, tmp_path, new_model):
    vision_first = [{"train": "vision", "steps": 2}, {"train": "answers"}]
    for fields, said in (
        ({"stages": vision_first}, "`train: vision` needs detection_loss_weight"),
        ({"attention_loss_weight": 0.3}, "attention_loss_weight needs detection_loss_weight"),
    ):
        with pytest.raises(ValueError, match=said):
            run.read(["--config", str(write_recipe(tmp_path, new_model=new_model, **fields))])
