"""The script MLflow runs to load a registered model (models from code: nothing is pickled)."""

from dsts_ray.predictor import load_served_predictor
from dsts_ray.tracking.pyfunc import serve

serve(load_served_predictor)
