"""Forced alignment: text that is known and audio that says it in, timed words and segments out."""
