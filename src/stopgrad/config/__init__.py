"""Every knob of a run on one page, its presets, and the way from text to a checked config.

In: a preset's name, a mapping, flags or YAML. Out: a frozen `Config`, or one error that names
every wrong key. Also here: generators as pure functions of a seed and a position. No torch.

    bounds       how a knob states its meaning and its bounds, and how they are checked
    reading      how images are read where there is more than one way
    knobs        every knob, with its meaning, its unit and the paper's value
    presets      named changes to the defaults
    guesses      other tools' names for the knobs
    parse        a mapping or flags -> a checked `Config`, and back
    randomness   seed and position -> generators
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
