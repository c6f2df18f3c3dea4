"""Arms x seeds -> runs -> records -> findings.

In: a study, which is data (a YAML file here, or a user's own), a preset, seeds and images. Out: a
directory of runs and the table of their numbers. A run has an address, so it is trained once
however many studies share it.

    definition    what a study is: arms, protocol, published findings
    parse         a study's file -> a study, and all that is wrong in it
    plan          a study, a preset and seeds -> the runs to make and the numbers to take
    stored        a study as its directory holds it, compared with an edited one
    claims        claims as files, where file locks do not hold
    folder        one run: what it is, how far it has come, its numbers and costs
    kept          studies without the folders of their runs: three files, and one for each study
    directory     the studies of a directory and the runs that they share
    task          the next task of a run, and the process that carries it out
    warm          a process that has imported what tasks need, and forks for each
    executors     where tasks are carried out: processes of this machine
    node          a job of an engine, on its node
    cluster       tasks as jobs of an engine that outlives the runner
    slurm_queue   the engine Slurm
    ray_actors    the engine Ray
    places        the executor that a user asks for; what engines report about a study's jobs
    runner        the runs of a study, until none is left
    results       runs -> a cell for each arm, metric and fraction; the overview; curves over seeds
    findings      published findings against our numbers
    factorial     arms that are a grid of knobs -> the effect of each step of a knob
    halving       a budget -> rungs of runs, each a study: fewer settings, longer runs
    lengths       how far the pretrainings went, and how far the published ones
    study         a study from its name to its last number
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
