from .condition import run_condition as run_condition
from .embedding.embed import embed_dataset as embed_dataset
from .embedding.tables import check_out as check_out
from .estimator.embedder import SimSiamEmbedder as SimSiamEmbedder
from .estimator.pictures import PicturesError as PicturesError
from .pretrained import PretrainedEncoder as PretrainedEncoder
from .write import export_run as export_run
