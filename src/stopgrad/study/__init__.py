"""Arms x seeds -> runs -> records -> a table with statistics.

A study is data (`stopgrad.studies`, or a user's YAML file). Its runs have addresses, so a run is
trained once whatever arms and studies want it; a finished run is never repeated, a killed one goes
on. The work is handed to an executor as command lines of stopgrad, and their exit codes are read.
"""

from stopgrad.study.conduct import Prepared, conduct, prepare_study
from stopgrad.study.definition import Study
from stopgrad.study.directory import StudyDirectory
from stopgrad.study.executor import Executor, Job, LocalProcesses, Order, local_processes
from stopgrad.study.plan import Choices
from stopgrad.study.results import Results, RunResult, load_results, missing_runs
from stopgrad.study.runner import Watch
from stopgrad.study.source import built_in_studies, read_study, study_file
from stopgrad.study.table import Format, study_table

__all__ = [
    "Choices",
    "Executor",
    "Format",
    "Job",
    "LocalProcesses",
    "Order",
    "Prepared",
    "Results",
    "RunResult",
    "Study",
    "StudyDirectory",
    "Watch",
    "built_in_studies",
    "conduct",
    "load_results",
    "local_processes",
    "missing_runs",
    "prepare_study",
    "read_study",
    "study_file",
    "study_table",
]
