"""Completion of the installed commands in bash and zsh: one static script that holds all words."""

from collections.abc import Sequence

from rlft.config.fields import settings
from rlft.config.groups import CONFIG_DIR, group_choices

SHELLS = ("bash", "zsh")

# bash takes = for the end of a word, and replaces only what comes after it: the last words of the values' branch.
BASH = """\
_rlft() {{
  local cur=${{COMP_LINE:0:COMP_POINT}} before=${{COMP_WORDS[COMP_CWORD-1]}}
  cur=${{cur##*[[:space:]]}}
  case $before in
    --config-name|-cn) COMPREPLY=($(compgen -W '{entries}' -- "$cur")); return ;;
    --config-dir|-cd) COMPREPLY=($(compgen -d -- "$cur")); return ;;
  esac
  if [[ $cur == *=* ]]; then
    COMPREPLY=($(compgen -W '{values}' -- "$cur"))
    [[ $COMP_WORDBREAKS == *=* ]] && COMPREPLY=("${{COMPREPLY[@]#*=}}")
  else
    COMPREPLY=($(compgen -W '{options} {keys}' -- "$cur"))
    [[ ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace 2>/dev/null
  fi
}}
complete -F _rlft {commands}
"""

ZSH = """\
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit -u }}
_rlft() {{
  case ${{words[CURRENT-1]}} in
    --config-name|-cn) compadd -- {entries}; return ;;
    --config-dir|-cd) _files -/; return ;;
  esac
  if [[ ${{words[CURRENT]}} == *=* ]]; then
    compadd -- {values}
  else
    compadd -- {options}
    compadd -S '' -- {keys}
  fi
}}
compdef _rlft {commands}
"""


def completion_script(shell: str, commands: Sequence[str], options: Sequence[str]) -> str:
    """The script for one of :data:`SHELLS`, to be evaluated by it, for these commands and their options."""
    choices = group_choices()
    for setting in settings():
        if "[]" not in setting.path and not setting.is_section:
            choices[setting.path] = ["true", "false"] if setting.kind is bool else list(setting.choices)
            choices[setting.path] += ["null"] if setting.optional else []
    values = [f"{key}={word}" for key, words in choices.items() for word in words if word.isidentifier()]
    return {"bash": BASH, "zsh": ZSH}[shell].format(
        entries=" ".join(sorted(file.stem for file in CONFIG_DIR.glob("*.yaml"))),
        values=" ".join(values),
        options=" ".join(options),
        keys=" ".join(f"{key}=" for key in choices),
        commands=" ".join(f"rlft-{name}" for name in commands),
    )
