"""Arms x seeds -> runs -> records -> findings.

In: a study, which is data (a YAML file here, or a user's own), a preset, seeds and images. Out: a
directory of runs and the table of their numbers. A run has an address, so it is trained once
however many studies share it.

    definition    what a study is: arms, protocol, published findings
    source        where a study's file is, and its YAML
    parse         the values of that file -> a study, and all that is wrong in it
    plan          a study, a preset and seeds -> the runs to make, each with its address
    data          whether the images bear the study, before anything starts
    stored        a study as its directory holds it
    changes       an edited study against the stored one: refused, or taken up
    folder        one run: what it is, how far it has come, its numbers and costs
    kept          a study without its runs, in four files
    directory     the studies of a directory and the runs that they share
    task          one step of a run, and the process that carries it out
    steps         what a run still needs: its next task
    executors     where tasks are carried out
    runner        the runs of a study, until none is left
    study         a study from its name to its last number
    results       runs -> a cell for each arm, metric and fraction of the labels
    findings      published findings against our numbers
    curves        epochs -> curves over seeds
    overview      how many runs of each arm are done, at work or lost
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
