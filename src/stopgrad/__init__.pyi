__version__: str

from .errors import StopgradError as StopgradError
from .face.advice import advise as advise
from .face.data import Data as Data
from .face.data import load as load
from .face.data import pack as pack
from .face.data_check import check as check
from .face.machine import bench as bench
from .face.ranking import compare as compare
from .face.report import views as views
from .face.report import write_report as write_report
from .face.run import Run as Run
from .face.several import Studies as Studies
from .face.several import study as study
from .face.several import verify as verify
from .face.tables import Shown as Shown
from .face.train import import_weights as import_weights
from .face.train import pretrain as pretrain
from .face.train import supervised as supervised
from .report import Heading as Heading
from .studies import built_in_studies as built_in_studies
from .studies import read_study as read_study
from .studies import study_file as study_file
from .training import Epoch as Epoch
