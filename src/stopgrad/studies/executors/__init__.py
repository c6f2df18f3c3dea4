"""Where the tasks of a study are carried out.

In: a task of a run that the runner has claimed. Out: a job that can be asked whether it has ended,
and stopped.

    executor    the interface
    local       processes of this machine
"""
