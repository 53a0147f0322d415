"""The page of the command line, made from the commands themselves: usage, arguments, options with defaults, examples.

    python docs/cli_page.py > command-line.md

`markdown()` gives the same text to whoever builds the site. Nothing is written down twice: what the page says of an
option is what `--help` says.
"""

import inspect

import click

INTRO = """# The command line

Everything from the shell. Each command explains itself with `--help` as well, and ends with the next one to type.
"""


def walk(command: click.Command, name: str, parent: click.Context | None = None):  # yields (context, command)
    "A command and all below it, in their order; groups themselves are left out unless they are the first."
    context = click.Context(command, info_name=name, parent=parent)
    if not isinstance(command, click.Group):
        yield context, command
        return
    for sub in command.list_commands(context):
        yield from walk(command.get_command(context, sub), sub, context)


def blocks(text: str) -> list:  # of (is it an example?, paragraph)
    "The paragraphs of a command's help; those after a backspace keep their lines and are examples."
    out = []
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        lines = paragraph.split("\n")
        if lines[0].strip() == "\b":
            out.append((True, inspect.cleandoc("\n".join(lines[1:]))))
        else:
            out.append((False, " ".join(line.strip() for line in lines)))
    return out


def cell(text: str) -> str:
    "Text for a cell of a table."
    return text.replace("|", "\\|").replace("\n", " ")


def flags(option: click.Option) -> str:
    "How an option is written: all its names, and what follows them."
    names = [f"`{n}`" for n in (*option.opts, *option.secondary_opts)]
    kind = "" if option.is_flag else option.make_metavar(click.Context(click.Command("x")))
    return ", ".join(names) + (f" `{cell(kind)}`" if kind else "")


def default(option: click.Option) -> str:
    "What an option is when it isn't given; nothing where its help says so."
    if option.required:
        return "required"
    if isinstance(option.show_default, str):
        return option.show_default
    if option.is_flag or not option.show_default or option.default is None:
        return ""
    value = option.default
    return " ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)


def options_table(command: click.Command) -> str:
    "The options of a command as a table."
    rows = [f"| {flags(o)} | {cell(o.help or '')} | {cell(default(o))} |" for o in command.params if isinstance(o, click.Option)]
    return "\n".join(["| option | what it does | default |", "|---|---|---|", *rows]) if rows else ""


def arguments(command: click.Command, context: click.Context) -> str:
    "The arguments of a command, as its usage names them."
    found = [p.make_metavar(context) for p in command.params if isinstance(p, click.Argument)]
    return "Arguments: " + ", ".join(f"`{name}`" for name in found) + "." if found else ""


def section(context: click.Context, command: click.Command) -> str:
    "All about one command."
    path = context.command_path
    usage = f"{path} {' '.join(command.collect_usage_pieces(context))}"
    parts = [f"## {path}"]
    told = blocks(command.help)
    parts += [text for example, text in told[:1] if not example]
    parts.append(f"```sh\n{usage}\n```")
    parts.append(arguments(command, context))
    parts += [text for example, text in told[1:] if not example]
    parts.append(options_table(command))
    examples = "\n".join(text for example, text in told if example)
    parts.append(f"For example:\n\n```sh\n{examples}\n```" if examples else "")
    return "\n\n".join(p for p in parts if p)


def markdown(main: click.Group | None = None) -> str:
    "The page."
    if main is None:
        from xrt_nb.cli import main
    begin = [text for example, text in blocks(main.help) if example]
    first = f"Begin with\n\n```sh\n{begin[0]}\n```" if begin else ""
    return "\n\n".join([INTRO.strip(), first, *(section(c, command) for c, command in walk(main, "xrt-nb"))]) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
