"""What the site's reader of docstrings has to be told: Sphinx roles and tables, and which parameters are trained."""

import re

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|obj):`~?([^`]+)`")
RULE = r"=+(?: +=+)+\n"
TABLE = re.compile(rf"^{RULE}.*?^{RULE}.*?^{RULE[:-2]}$", re.M | re.S)


class OurDocstrings(griffe.Extension):
    """Changes docstrings before they are read as Google's style."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring:
            text = ROLE.sub(r"`\1`", obj.docstring.value)
            text = TABLE.sub(r"```text\n\g<0>\n```", text)
            # to Google's style `Parameters` is another word for `Args`; with us they are what is trained
            obj.docstring.value = re.sub(r"^Parameters:$", "Trained parameters:", text, flags=re.M)
