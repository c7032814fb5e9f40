import subprocess
import sys


def loaded_modules(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after a statement."""
    program = f"import sys; {statement}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return set(result.stdout.split())


def test_configuration_loads_without_heavy_libraries() -> None:
    statement = "from dsts_ray.config import command_line as c; c.load_config(preset='demo')"
    loaded = loaded_modules(statement)
    assert "dsts_ray.config.load" in loaded
    assert not loaded & {"torch", "ray", "mlflow", "deepspeed", "numpy", "pyarrow"}
