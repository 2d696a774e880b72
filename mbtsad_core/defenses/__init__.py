"""Defenses: a suspect and a clean sample in, a purified classifier out; none is told the trigger."""
