"""Command line of the recipe: ``python -m models.embedded.recipe STAGE --source DIR --work DIR``."""

import argparse
import logging
from pathlib import Path

from models.embedded.recipe.config import RecipeConfig

_EMBEDDED = Path(__file__).resolve().parents[1] / "canary-mini.nemo"


def main() -> None:
    """Runs one stage, or all of them in order."""
    parser = argparse.ArgumentParser(prog="python -m models.embedded.recipe", description=__doc__)
    parser.add_argument("stage", choices=["prepare", "train-ctc", "train-aed", "bundle", "evaluate", "all"])
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("mini.yaml"))
    parser.add_argument("--source", type=Path, required=True, help="folder with text/ and audio/")
    parser.add_argument("--work", type=Path, default=Path("build/canary-mini"))
    parser.add_argument("--target", type=Path, default=_EMBEDDED, help="the bundle to write")
    parser.add_argument("--start-from", type=Path, help="a bundle whose training is continued")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    config = RecipeConfig.load(arguments.config)

    from models.embedded.recipe import bundle, evaluate, prepare, train

    if arguments.stage in ("prepare", "all"):
        prepare.prepare(config, arguments.source, arguments.work, arguments.start_from)
    if arguments.stage in ("train-ctc", "all"):
        train.train_ctc(config, arguments.work, arguments.device, arguments.start_from)
    if arguments.stage in ("train-aed", "all"):
        train.train_aed(config, arguments.work, arguments.device, arguments.start_from)
    if arguments.stage in ("bundle", "all"):
        bundle.bundle(config, arguments.work, arguments.target)
    if arguments.stage in ("evaluate", "all"):
        evaluate.evaluate(arguments.work, arguments.target)
        print((arguments.work / "evaluation-test.md").read_text())


if __name__ == "__main__":
    main()
