"""What a module imports, read from its file."""
from __future__ import annotations

import ast
from pathlib import Path


def imports(file: Path, name: str, at_top: bool = False) -> set[str]:
    """Dotted names of the modules that a file imports, ``name`` being its own.

    With ``at_top``, those which it imports when it is imported itself.
    """
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = name.split('.')[:len(name.split('.')) - node.level] if node.level else []
            module = '.'.join([*parts, *([node.module] if node.module else [])])
            # `from . import a` names a module, `from .a import b` what is in one
            found.update([module] if node.module else [f'{module}.{alias.name}' for alias in node.names])
        if at_top and (isinstance(node, (ast.FunctionDef, ast.Lambda))
                       or isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING'):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text(encoding='utf-8')))
    return found


def module_name(file: Path) -> str:
    """A file's dotted name, by its path in the package, with a last part for relative imports to drop: '__init__' in
    a package."""
    return '.'.join(('dynconv_mm', *file.with_suffix('').parts))
