"""New plugins: :func:`benchframe.scaffold.project.make` writes a package that works, from ``templates/``."""
