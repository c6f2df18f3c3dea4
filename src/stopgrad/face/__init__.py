"""The public face: what `import stopgrad` offers, and what the command line calls.

In: specs, paths, arrays and knobs. Out: objects that show themselves, whose results are on disk.

    progress    bars and lines on standard error
    tables      results, as tables in a terminal and in a notebook
    arguments   arguments of a call, checked
    data        load, pack: a data set by name, by path or in memory
    data_check  check: what a data set holds, as tables and as JSON
    opened      a run directory with its images and its model
    trackers    a run mirrored to TensorBoard, Weights & Biases, MLflow, Trackio
    report      write_report, views: a page, a poster, figures, and views of images
    run         Run: scored, resumed, used and shown
    train       pretrain, supervised: training begun from Python
    machine     bench: how fast this machine is
    ranking     compare: runs ordered by a measure that needs no labels
    several     study, Studies, verify
    advice      advise: a setting for a long run, from short ones within a time budget
"""
