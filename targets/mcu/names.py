"""The one place where text from a model becomes text of a program.

A model's names are any text: C keywords, quotes, newlines, ``*/``, ten kilobytes of emoji. Whatever
is printed into generated C, Markdown or build files passes through one of these functions, so a
model cannot change what its own firmware means.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterable

MAX_IDENTIFIER = 40
"""Longest identifier made from a model's text: C99 compilers may ignore what follows 63."""

_C_KEYWORDS = """
auto break case char const continue default do double else enum extern float for goto if inline int
long register restrict return short signed sizeof static struct switch typedef union unsigned void
volatile while alignas alignof bool constexpr false nullptr static_assert thread_local true typeof
typeof_unqual asm fortran
"""
_CPP_KEYWORDS = """
and and_eq bitand bitor catch char8_t char16_t char32_t class compl concept consteval constinit
const_cast co_await co_return co_yield decltype delete dynamic_cast explicit export friend mutable
namespace new noexcept not not_eq operator or or_eq private protected public reinterpret_cast
requires static_cast template this throw try typeid typename using virtual wchar_t xor xor_eq
"""
_COMMON_MACROS_AND_NAMES = """
main errno linux unix i386 arm near far interrupt complex imaginary I NULL NAN INFINITY EOF
offsetof assert stdin stdout stderr va_arg va_start va_end signbit isnan isinf isfinite
"""
# Compilers know these whether or not a header declares them.
_FLOAT_FUNCTIONS = """
acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh drem erf erfc exp exp10 exp2
expm1 fabs fdim floor fma fmax fmin fmod frexp gamma hypot ilogb j0 j1 jn ldexp lgamma llrint
llround log log10 log1p log2 logb lrint lround modf nan nearbyint nextafter nexttoward pow pow10
remainder remquo rint round roundeven scalb scalbln scalbn significand sin sincos sinh sqrt tan
tanh tgamma trunc y0 y1 yn cabs cacos cacosh carg casin casinh catan catanh ccos ccosh cexp cimag
clog conj cpow cproj creal csin csinh csqrt ctan ctanh
"""
_OTHER_FUNCTIONS = """
abort abs alloca bcmp bcopy bzero calloc dcgettext dgettext exit execl execlp execle execv execve
execvp ffs ffsl ffsll finite fork fprintf fputc fputs free fscanf fwrite gettext imaxabs index
isalnum isalpha isascii isblank iscntrl isdigit isgraph islower isprint ispunct isspace isupper
iswalnum iswalpha iswblank iswcntrl iswdigit iswgraph iswlower iswprint iswpunct iswspace iswupper
iswxdigit isxdigit labs llabs malloc memchr memcmp memcpy memmove mempcpy memset posix_memalign
printf putc putchar puts realloc rindex scanf setjmp longjmp snprintf sprintf sscanf stpcpy stpncpy
strcasecmp strcat strchr strcmp strcpy strcspn strdup strfmon strlen strncasecmp strncat strncmp
strncpy strndup strnlen strpbrk strrchr strspn strstr strftime toascii tolower toupper towlower
towupper vfprintf vfscanf vprintf vscanf vsnprintf vsprintf vsscanf
"""
RESERVED = frozenset(
    (_C_KEYWORDS + _CPP_KEYWORDS + _COMMON_MACROS_AND_NAMES + _OTHER_FUNCTIONS).split()
) | frozenset(name + kind for name in _FLOAT_FUNCTIONS.split() for kind in ("", "f", "l"))
"""Words that are never used alone as an identifier: C, C++, macros of common headers, and functions
that compilers know."""


def identifier(text: str, default: str = "model") -> str:
    """A C (and C++) identifier that resembles `text`.

    Letters, digits and underscores of ASCII stay, anything else becomes an underscore; runs of
    underscores shrink to one and none is left at the ends, so reserved names (``_X``, ``a__b``)
    cannot arise. Text that starts with a digit gets an ``x`` before it, reserved words an
    underscore after them, and names over `MAX_IDENTIFIER` characters end in a hash of the whole.
    Different texts may give the same identifier: `Names` tells them apart.
    """
    name = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9_]", "_", text)).strip("_")
    if not name:
        name = default
    if name[0].isdigit():
        name = "x" + name
    if len(name) > MAX_IDENTIFIER:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = name[: MAX_IDENTIFIER - 9].rstrip("_") + "_" + digest
    return name + "_" if name in RESERVED else name


class Names:
    """Gives out identifiers that differ from each other, the same ones in every run.

    Names that differ only in case count as equal, because they also become macros and files.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = {name.lower() for name in taken}

    def unique(self, text: str, default: str = "value") -> str:
        """`identifier(text)`, followed by ``_2``, ``_3`` ... where it was given out before."""
        base = identifier(text, default)
        name, number = base, 1
        while name.lower() in self._taken:
            number += 1
            name = f"{base.rstrip('_')}_{number}"
        self._taken.add(name.lower())
        return name


def printable(text: str, limit: int = 160) -> str:
    """`text` as one line of printable ASCII: everything else escaped as Python would, cut at
    `limit` characters."""
    line = text.encode("unicode_escape").decode("ascii")
    return line if len(line) <= limit else line[: limit - 3] + "..."


def comment(text: str, limit: int = 160) -> str:
    """`text` as it can stand inside ``/* ... */`` (with a space on either side): one printable
    ASCII line that neither opens nor closes a comment and contains no trigraph."""
    line = printable(text, limit)
    return line.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")


def c_string(text: str, limit: int = 1000) -> str:
    """`text` as a C string literal, in UTF-8.

    Everything but plain ASCII is escaped in three octal digits, which unlike hexadecimal escapes
    cannot swallow the character after them. Text of more than `limit` bytes is cut there (C99
    compilers need not accept more than 4095 characters).
    """
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > limit:
        data = data[: limit - 3] + b"..."
    plain = frozenset(range(0x20, 0x7F)) - frozenset(b'"\\?')
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in data) + '"'


def markdown(text: str, limit: int = 80) -> str:
    """`text` as one cell of a Markdown table: no markup, no HTML, no line break."""
    line = html.escape(printable(text, limit), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~-])", r"\\\1", line)
