"""A verb without a config answers a wrong option with its own options, not with those of training."""

import importlib
from argparse import ArgumentError

import pytest

from bnnlight import cli
from bnnlight.console.errors import explain
from bnnlight.console.parser import Parser, parser_of
from bnnlight.experiment.config.early.help_page import VERBS


@pytest.fixture
def parser():
    parser = Parser(prog="bnnlight verb")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--num_check", type=int)
    one.add_argument("--output")
    parser.add_argument("images", nargs="?")
    return parser


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--num_chekc", "3"], "no option '--num_chekc': did you mean --num_check?"),
        (["--OUTPUT=here"], "no option '--OUTPUT': did you mean --output?"),
        # near an option of the trainer, which this verb does not have
        (["--max_epochs", "3"], "no option '--max_epochs': see bnnlight verb --help"),
        (["--foo"], "no option '--foo': see bnnlight verb --help"),
        (["-x"], "no option '-x': see bnnlight verb --help"),
        (["a.png", "b.png"], "'b.png' does not belong to any option: see bnnlight verb --help"),
    ],
)
def test_wrong_words_are_answered_with_options_of_the_verb(parser, args, message):
    with pytest.raises(ArgumentError) as raised:
        parser.parse_args(args)
    assert explain(raised.value) == (2, message)


def test_right_words_are_taken(parser):
    options = parser.parse_args(["a.png", "--num_check=3"])
    assert (options.images, options.num_check, options.output) == ("a.png", 3, None)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a.ckpt", "--format", "packed"], "'a.ckpt' does not belong to any option: write --ckpt_path a.ckpt"),
        (
            ["--format", "packed", "--json", "a.ckpt"],
            "'a.ckpt' does not belong to any option: write --ckpt_path a.ckpt",
        ),
        (["a.ckpt"], "'a.ckpt' does not belong to any option: write --ckpt_path a.ckpt"),
        (["--format", "packed"], "the following arguments are required: --ckpt_path"),
        (["--json"], "the following arguments are required: --ckpt_path, --format"),
        ([], "the following arguments are required: --ckpt_path, --format"),
    ],
)
def test_a_word_that_may_be_meant_for_a_required_option(args, message):
    parser = Parser(prog="bnnlight verb")
    parser.add_argument("--ckpt_path", required=True)
    parser.add_argument("--format", required=True, choices=("packed", "onnx"))
    parser.add_argument("--json", action="store_true")
    with pytest.raises(ArgumentError) as raised:
        parser.parse_args(args)
    assert explain(raised.value) == (2, message)


@pytest.mark.parametrize("verb", sorted(cli._VERBS.keys() - set(VERBS)))
def test_the_parser_of_a_verb_is_found_without_running_it(verb):
    module, function = cli._VERBS[verb][0].split(":")
    parser = parser_of(getattr(importlib.import_module(module), function))
    assert parser.prog == f"bnnlight {verb}" and "--help" in parser.format_help()


def test_a_verb_that_asks_for_no_parser_is_told():
    with pytest.raises(TypeError, match="does not begin with its Parser"):
        parser_of(lambda args: None)
