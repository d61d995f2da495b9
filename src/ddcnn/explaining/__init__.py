"""Why a network decides as it does: what each subdomain says, what that is worth, and which pixels it looks at."""

from ddcnn.explaining.explain import Explanation, explain
from ddcnn.explaining.grad_cam import grad_cam

__all__ = ["Explanation", "explain", "grad_cam"]
