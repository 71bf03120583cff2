"""Questions asked of responses: each measure beside its chance, its ceiling and its controls."""
