"""The service: a model that stays loaded, behind HTTP. Needs the extra [serve]."""
