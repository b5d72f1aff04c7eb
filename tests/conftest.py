from tiny_models import models

__all__ = ["models"]
