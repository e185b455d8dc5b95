"""``python -m service`` is ``aviary``."""

from service.cli import main

main(prog_name="aviary")
