"""Raw requests that two parsers may read differently, made by combining a few kinds of doubt.

A case is a name and bytes. `TAG` in the bytes stands for the case's own mark, by which an upstream tells
whose request it got. What an attacker wants to be served unseen asks for `/TAG/hidden`.
"""

HOST = b"Host: hooks.example.org"
HIDDEN = b"GET /TAG/hidden HTTP/1.1\r\n" + HOST + b"\r\n\r\n"
NEXT = b"POST /TAG/next HTTP/1.1\r\n" + HOST + b"\r\nContent-Length: 2\r\n\r\nok"
LENGTH, CODING = b"Content-Length", b"Transfer-Encoding"
LAST = b"0\r\n\r\n"


def message(*fields, line=b"POST /TAG/outer HTTP/1.1", host=HOST, body=b"", end=b"\r\n"):
    """A request whose every line ends with `end`."""
    return end.join([line, *([host] if host else []), *fields, b"", b""]) + body


def chunked(body, *fields):
    return message(CODING + b": chunked", *fields, body=body)


def length_of(body):
    return LENGTH + b": %d" % len(body)


# --- one length, in every spelling
LENGTHS = [
    b"3", b"03", b"0003", b"0", b"-0", b"00", b"+3", b"-3", b" 3", b"3 ", b"\t3", b"3\t", b"3 0", b"3 3", b"3,", b",3", b"3,3", b"3, 3", b"3;3",
    b"3;", b"3.0", b"3e0", b"0x3", b"0b11", b"0o3", b"3_0", b"1_0", b"'3'", b'"3"', b"(3)", b"three", b"", b" ", b"\t", b"NaN", b"inf", b"3\x0b", b"\x0c3",
    b"3\x00", b"3\xa0", b"\xd9\xa3", b"\xef\xbc\x93", b"3\r", b"\r3", b"2147483648", b"4294967296", b"4294967299", b"9223372036854775807",
    b"9223372036854775808", b"18446744073709551615", b"18446744073709551616", b"18446744073709551619", b"1" + b"0" * 40, b"0" * 40 + b"3", b"-1",
    b"--3", b"3-", b"3h", b"3 bytes", b"3, 0", b"0, 3", b"3/1", b"%33", b"\\x33", b"3#", b"3=3",
]

# --- one coding, in every spelling
CODINGS = [
    b"chunked", b"Chunked", b"CHUNKED", b"chunked ", b" chunked", b"\tchunked", b"chunked\t", b"\x0bchunked", b"chunked\x0b", b"\x0cchunked", b"chunked\x00",
    b"\x00chunked", b"chunked,", b",chunked", b", chunked", b"chunked;", b"chunked;q=1", b"chunked; q=0", b'chunked;a="b"', b'"chunked"', b"'chunked'",
    b"(chunked)", b"chunked (it)", b"chunk", b"chunkedd", b"xchunked", b"x chunked", b"chunked x", b"chunked chunked", b"chunked,chunked", b"chunked, chunked",
    b"identity", b"identity, chunked", b"chunked, identity", b"identity,chunked,identity", b"gzip", b"gzip, chunked", b"chunked, gzip", b"deflate, chunked",
    b"x-gzip,chunked", b"br,chunked", b"gzip;q=0, chunked", b"trailers", b"trailers, chunked", b"none", b"false", b"", b" ", b",", b"cow", b"cow, chunked",
    b"chunked\xa0", b"\xc2\xa0chunked", b"\xef\xbb\xbfchunked", b"chun\tked", b"chun ked", b"chunke\xc4\x91", b"\xc3\xa7hunked", b"chunked\r", b"\rchunked", b"chu\rnked",
    b"[chunked]", b"chunked=1", b"chunked:", b":chunked", b"ch%75nked", b"\\chunked", b"chunked/1", b"chunked\x7f", b"\x01chunked", b"chunKed, ", b" ,chunked",
]

# --- one field name, in every disguise: NAME is replaced
DISGUISES = {
    "space before the colon": b"NAME : ",
    "tab before the colon": b"NAME\t: ",
    "two spaces before the colon": b"NAME  : ",
    "vertical tab before the colon": b"NAME\x0b: ",
    "carriage return before the colon": b"NAME\r: ",
    "NUL before the colon": b"NAME\x00: ",
    "no-break space before the colon": b"NAME\xa0: ",
    "space before the name": b" NAME: ",
    "tab before the name": b"\tNAME: ",
    "vertical tab before the name": b"\x0bNAME: ",
    "carriage return before the name": b"\rNAME: ",
    "NUL before the name": b"\x00NAME: ",
    "byte order mark before the name": b"\xef\xbb\xbfNAME: ",
    "colon before the name": b":NAME: ",
    "quoted": b'"NAME": ',
    "bracketed": b"(NAME): ",
    "colon twice": b"NAME:: ",
    "colon and comma": b"NAME,: ",
    "equals for the colon": b"NAME= ",
    "space for the colon": b"NAME ",
    "colon alone": b"NAME:",
    "folded before the value": b"NAME:\r\n ",
    "folded with a tab": b"NAME:\r\n\t",
    "folded twice": b"NAME:\r\n \r\n ",
    "folded by a line feed": b"NAME:\n ",
    "behind a field and a line feed": b"X-A: b\nNAME: ",
    "behind a field and a carriage return": b"X-A: b\rNAME: ",
    "behind a field and a NUL": b"X-A: b\x00NAME: ",
    "behind a field and both, reversed": b"X-A: b\n\rNAME: ",
    "behind a field and a doubled return": b"X-A: b\r\r\nNAME: ",
    "folded into another field": b"X-A: b\r\n NAME: ",
    "folded into another field by a tab": b"X-A: b\r\n\tNAME: ",
    "behind an empty name": b": b\r\nNAME: ",
    "behind a line without a colon": b"nonsense\r\nNAME: ",
    "behind a blank line of spaces": b"X-A: b\r\n \r\nNAME: ",
    "underscores for hyphens": b"NAME_: ",
    "upper case": b"UPPER: ",
}


def disguised(pattern, name):
    if pattern == b"NAME_: ":
        return name.replace(b"-", b"_") + b": "
    return pattern.replace(b"NAME", name).replace(b"UPPER", name.upper())


def lengths():
    for value in LENGTHS:
        yield f"length {value!r}", message(LENGTH + b": " + value, body=b"abc" + HIDDEN)
    for one in (b"3", b"0", b"5"):
        for other in (b"3", b"03", b"0", b"6", b"+3", b"", b"x"):
            yield f"lengths {one!r} and {other!r}", message(LENGTH + b": " + one, LENGTH + b": " + other, body=b"abc" + HIDDEN)
    yield "lengths apart", message(LENGTH + b": 3", b"X-A: b", LENGTH.lower() + b": 3", body=b"abc" + HIDDEN)
    yield "three lengths", message(*[LENGTH + b": 3"] * 3, body=b"abc" + HIDDEN)
    yield "no length and a body", message(body=HIDDEN)
    yield "length of one more than comes", message(LENGTH + b": 4", body=b"abc")
    for method in (b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE", b"PUT", b"PATCH", b"POST"):
        line = method + b" /TAG/outer HTTP/1.1"
        yield f"{method.decode()} with a length", message(length_of(HIDDEN), line=line, body=HIDDEN)
        yield f"{method.decode()} without a length", message(line=line, body=HIDDEN)
        yield f"{method.decode()} chunked", message(CODING + b": chunked", line=line, body=LAST + HIDDEN)


def codings():
    for value in CODINGS:
        yield f"coding {value!r}", message(CODING + b": " + value, body=LAST + HIDDEN)
    for one in CODINGS[:40:3]:
        yield f"codings chunked and {one!r}", message(CODING + b": chunked", CODING + b": " + one, body=LAST + HIDDEN)
        yield f"codings {one!r} and chunked", message(CODING + b": " + one, CODING + b": chunked", body=LAST + HIDDEN)


def length_and_coding():
    """What one reads by its length the other reads by its chunks."""
    short, whole = LENGTH + b": 3", length_of(LAST + HIDDEN)
    for value in CODINGS[:50]:
        coding = CODING + b": " + value
        yield f"length 3, then coding {value!r}", message(short, coding, body=LAST + HIDDEN)
        yield f"coding {value!r}, then the whole length", message(coding, whole, body=LAST + HIDDEN)
    for value in LENGTHS[:40:2]:
        length = LENGTH + b": " + value
        yield f"chunked, then length {value!r}", message(CODING + b": chunked", length, body=LAST + HIDDEN)
        yield f"length {value!r}, then chunked", message(length, CODING + b": chunked", body=LAST + HIDDEN)


def names():
    for text, pattern in DISGUISES.items():
        for name, value, body in ((LENGTH, b"3", b"abc"), (CODING, b"chunked", LAST)):
            hidden = disguised(pattern, name) + value
            short = name.decode()
            yield f"{short}, {text}", message(hidden, body=body + HIDDEN)
            if name == CODING:
                yield f"{short}, {text}, over a length", message(length_of(LAST + HIDDEN), hidden, body=LAST + HIDDEN)
        yield f"Host, {text}", message(disguised(pattern, b"Host") + b"other.example.org", LENGTH + b": 0", body=NEXT)
    for name in (b"ContentLength", b"Content-Length-", b"Content--Length", b"X-Content-Length", b"Content\xadLength", b"Content Length", b"Content.Length"):
        yield f"nearly {name!r}", message(name + b": 3", body=b"abc" + HIDDEN)
    for name in (b"TransferEncoding", b"Transfer-Encodings", b"TE", b"Transfer Encoding", b"X-Transfer-Encoding", b"Transfer-Enc\xc3\xb6ding"):
        yield f"nearly {name!r}", message(name + b": chunked", body=LAST + HIDDEN)


SIZES = [
    b"3", b"03", b"0000000003", b"0" * 15 + b"3", b"0" * 16 + b"3", b"0" * 200 + b"3", b"+3", b"-3", b" 3", b"3 ", b"3  ", b"\t3", b"3\t", b"3\x0b", b"3\x00", b"3\xa0", b"0x3", b"0X3", b"x3",
    b"3h", b"#3", b"3.", b"3,", b"3_", b"_3", b"3 3", b"g", b"", b" ", b"\r", b"10000000000000003", b"100000003", b"ffffffffffffffff", b"fffffffffffffffd", b"8000000000000003",
    b"ffffffff00000003", b"1" * 100, b"3\r", b"\n3", b"\r\n3", b"\xef\xbc\x93", b"'3'", b'"3"', b"(3)", b"3=", b"%33",
]
EXTENSIONS = [
    b";", b";a", b";a=b", b' ; a = "b"', b';a="b', b';a="\r\n', b";a=b;c=d", b";;", b";=", b";=b", b";a=", b";\x00", b";a\x7f", b";\xff", b";\n", b";a\n", b";\r", b";a\rb", b";\r\r\n", b"; \n5",
    b";" + b"a" * 5000, b";" + b"a" * 20000, b" a", b"=a", b",a", b"\x0b;a", b'"a"', b";a=\"\\\"\"", b";a='\n0'",
]
ENDS = [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\n", b"\n\r", b"", b" \r\n", b"X\r\n", b"\x00\r\n", b"\r\n\r\n", b"\r\nX", b"\r ", b"\rX", b"  "]
TRAILERS = [
    b"X-Sig: 1\r\n", b"Content-Length: 60\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: other.example.org\r\n", b"Authorization: Bearer x\r\n", b"X-Hookward-Verified: token\r\n",
    b"X-Forwarded-For: 192.0.2.1\r\n", b"Connection: close\r\n", b"X-A: b\n", b"X-A: b\r", b" folded\r\n", b"X-A: b\r\n folded\r\n", b"no colon\r\n", b": b\r\n", b"X A: b\r\n", b"X-A : b\r\n",
    b"X-A: \x00\r\n", b"\x00\r\n", b"GET /TAG/hidden HTTP/1.1\r\nHost: hooks.example.org\r\n", b"X-A: " + b"b" * 20000 + b"\r\n", b"X-A: b\r\n" * 200, b"\n", b"\r", b"0\r\n",
]


def chunks():
    for size in SIZES:
        yield f"chunk size {size!r}", chunked(size + b"\r\nabc\r\n" + LAST + HIDDEN)
    for size in SIZES[:30:2]:
        zero = size.replace(b"3", b"0") or b"00"
        yield f"last chunk {zero!r}", chunked(b"3\r\nabc\r\n" + zero + b"\r\n\r\n" + HIDDEN)
    for text in EXTENSIONS:
        short = text if len(text) < 40 else text[:10] + b"..%d" % len(text)
        yield f"chunk extension {short!r}", chunked(b"3" + text + b"\r\nabc\r\n" + LAST + HIDDEN)
        yield f"extension of the last chunk {short!r}", chunked(b"3\r\nabc\r\n0" + text + b"\r\n\r\n" + HIDDEN)
    for end in ENDS:
        yield f"size line ends {end!r}", chunked(b"3" + end + b"abc\r\n" + LAST + HIDDEN)
        yield f"data ends {end!r}", chunked(b"3\r\nabc" + end + LAST + HIDDEN)
        yield f"last size line ends {end!r}", chunked(b"3\r\nabc\r\n0" + end + b"\r\n" + HIDDEN)
        yield f"body ends {end!r}", chunked(b"3\r\nabc\r\n0\r\n" + end + HIDDEN)
    for trailer in TRAILERS:
        short = trailer if len(trailer) < 70 else trailer[:10] + b"..%d" % len(trailer)
        yield f"trailer {short!r}", chunked(b"3\r\nabc\r\n0\r\n" + trailer + b"\r\n" + NEXT)
    for size in (b"2", b"4", b"0", b"3f", b"33"):
        yield f"chunk of 3 called {size!r}", chunked(size + b"\r\nabc\r\n" + LAST + HIDDEN)
    yield "an extension with a line feed hides a size", chunked(b"2;\nxx\r\n33\r\n0\r\n\r\n" + HIDDEN)
    yield "a chunk that holds a last chunk", chunked(b"5\r\n" + LAST + b"\r\n" + LAST + HIDDEN)


def lines():
    """How lines end."""
    for end in ENDS:
        yield f"every line ends {end!r}", message(LENGTH + b": 3", end=end or b"\x85", body=b"abc" + HIDDEN)
        start = b"POST /TAG/outer HTTP/1.1"
        yield f"the request line ends {end!r}", start + end + HOST + b"\r\n" + LENGTH + b": 3\r\n\r\nabc" + HIDDEN
        yield f"Host's line ends {end!r}", start + b"\r\n" + HOST + end + LENGTH + b": 3\r\n\r\nabc" + HIDDEN
        yield f"the length's line ends {end!r}", message(body=b"")[:-2] + LENGTH + b": 3" + end + b"\r\nabc" + HIDDEN
        yield f"the head ends {end!r}", message(LENGTH + b": 3")[:-2] + end + b"abc" + HIDDEN
    for lead in (b"\r\n", b"\r\n\r\n", b"\r\n" * 50, b"\n", b"\n\n", b"\r", b" ", b"\t", b" \r\n", b"\x00", b"\xef\xbb\xbf", b"\x0b", b"X\r\n", b"0\r\n\r\n", b":\r\n", b"\r\n \r\n"):
        short = lead if len(lead) < 20 else lead[:4] + b"..%d" % len(lead)
        yield f"before the request {short!r}", lead + message(length_of(b"abc"), body=b"abc" + NEXT)
        yield f"between requests {short!r}", message(length_of(b"abc"), body=b"abc" + lead + NEXT)


METHODS = [
    b"get", b"Post", b"POST ", b"P OST", b"POST\x00", b"\x00POST", b"PO\tST", b"POST,GET", b"G!T", b"G#T", b"G{T", b"(POST)", b'"POST"', b"POST:", b"", b"GET/", b"PRI", b"CONNECT",
    b"TRACE", b"DEBUG", b"PURGE", b"M-SEARCH", b"X" * 31, b"X" * 33, b"X" * 9000, b"\xc3\x96PEN", b"HTTP/1.1", b"GET\r", b"POST\n", b"UPDATE", b"*",
]
VERSIONS = [
    b"HTTP/1.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/1.10", b"HTTP/01.1", b"HTTP/1.01", b"HTTP/2", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/11.1", b"HTTP/1.1.1", b"HTTP/1", b"HTTP/1.", b"HTTP/.1",
    b"http/1.1", b"Http/1.1", b"HTTP /1.1", b"HTTP/ 1.1", b"HTTP/1 .1", b"HTTP/1.1 ", b"HTTP/1.1\t", b"HTTP/1.1;", b"HTTP/1.1x", b"HTTPS/1.1", b"HTP/1.1", b"HTTP\\1.1", b"HTTP/1,1",
    b"HTTP/-1.1", b"HTTP/+1.1", b"HTTP/1.1\x00", b"\x00HTTP/1.1", b"ICY/1.1", b"RTSP/1.0", b"", b"HTTP/1.1 HTTP/1.1", b"/x HTTP/1.1",
]
TARGETS = [
    b"*", b"/TAG/*", b"TAG", b"TAG/a", b"hooks.example.org:80", b"hooks.example.org", b"//TAG/a", b"///TAG", b"/./TAG", b"/../TAG", b"/TAG/..", b"/TAG/../b", b"/TAG/.;/b", b"/TAG/..;/b",
    b"/TAG/%2e%2e/b", b"/TAG/%2E./b", b"/TAG/%252e%252e/b", b"/TAG/..%2fb", b"/TAG/..%5cb", b"/TAG\\..\\b", b"/TAG/%00", b"/TAG/%0d%0aX:1", b"/TAG/%7f", b"/TAG/%zz", b"/TAG/%", b"/TAG/%a",
    b"/TAG/%u002e", b"/TAG/%c0%ae", b"/TAG/\xc3\xbc", b"/TAG/\xff", b"/TAG/\x00", b"/TAG/\x01", b"/TAG/\x7f", b"/TAG/\t", b"/TAG/a b", b"/TAG/a\x0bb", b"/TAG/a\rb", b"/TAG/#f", b"/TAG#f?x=1",
    b"/TAG?a#b", b"?TAG", b"#TAG", b"\\TAG", b";/TAG", b"/TAG/<a>", b'/TAG/"a"', b"/TAG/{a}", b"/TAG/|a|", b"/TAG/^a`", b"/TAG/[a]", b"/TAG?[]={}", b"/TAG?%zz", b"/TAG?a=\x00", b"/TAG?a=\xff",
    b"/TAG/" + b"a" * 8000, b"/TAG/" + b"a" * 9000, b"/TAG/" + b"a" * 70000, b"/TAG?" + b"a=b&" * 1500, b"",
    b"http://hooks.example.org/TAG", b"HTTP://hooks.example.org/TAG", b"https://hooks.example.org/TAG", b"http://hooks.example.org/TAG/../b", b"http://HOOKS.example.org/TAG",
    b"http://hooks.example.org:80/TAG", b"http://hooks.example.org.:80/TAG", b"http://other.example.org/TAG", b"http://u@hooks.example.org/TAG", b"http://u:p@hooks.example.org/TAG",
    b"http://hooks.example.org?TAG", b"http://hooks.example.org#TAG", b"http://hooks.example.org\\TAG", b"http:/TAG", b"http:TAG", b"http:///TAG", b"http://?TAG", b"http://[::1]/TAG", b"http://[::1/TAG",
    b"http://hooks.example.org@other.example.org/TAG", b"http://hooks.example.org:x/TAG", b"http://hooks.example.org:99999/TAG", b"ftp://hooks.example.org/TAG", b"file:///TAG", b"javascript:TAG",
    b"ws://hooks.example.org/TAG", b"gopher://hooks.example.org/TAG", b"1http://hooks.example.org/TAG", b"//hooks.example.org/TAG", b"http://hooks.example.org/TAG http://other.example.org/",
]
GAPS = [b"  ", b"\t", b" \t", b"\x0b", b"\x0c", b"\xa0", b"\x00", b"\r", b"\n", b"\r\n ", b"   ", b""]


def request_lines():
    def case(line, mark):
        fields = [b"X-Case: TAG", length_of(b"abc")]
        return f"{mark} {line!r}"[:100], message(*fields, line=line, body=b"abc" + NEXT)

    for method in METHODS:
        yield case(method + b" /TAG/outer HTTP/1.1", f"method of {len(method)}")
    for version in VERSIONS:
        yield case(b"POST /TAG/outer " + version, "version")
    for target in TARGETS:
        yield case(b"POST " + target + b" HTTP/1.1", f"target of {len(target)}")
    yield case(b"OPTIONS * HTTP/1.1", "target")
    yield case(b"CONNECT hooks.example.org:80 HTTP/1.1", "target")
    yield case(b"GET * HTTP/1.1", "target")
    for gap in GAPS:
        yield case(b"POST" + gap + b"/TAG/outer HTTP/1.1", "first gap")
        yield case(b"POST /TAG/outer" + gap + b"HTTP/1.1", "second gap")
        yield case(b"POST /TAG/outer HTTP/1.1" + gap, "end of line")
    for version in (b"HTTP/1.0", b"HTTP/0.9", b""):
        line = b"POST /TAG/outer " + version
        yield f"{version!r} chunked", message(CODING + b": chunked", line=line, body=LAST + HIDDEN)
        yield f"{version!r} kept alive", message(length_of(b"abc"), b"Connection: keep-alive", line=line, body=b"abc" + NEXT)
        yield f"{version!r} without Host", message(length_of(b"abc"), line=line, host=None, body=b"abc" + NEXT)
        yield f"{version!r} without a length", message(b"Connection: keep-alive", line=line, body=HIDDEN)


HOSTS = [
    b"", b" ", b"\t", b",", b"hooks.example.org, other.example.org", b"hooks.example.org,", b"hooks.example.org other.example.org", b"hooks.example.org/TAG", b"hooks.example.org?x", b"hooks.example.org#x",
    b"u@hooks.example.org", b"u:p@hooks.example.org", b"http://hooks.example.org", b"hooks.example.org:", b"hooks.example.org:80", b"hooks.example.org:080", b"hooks.example.org:65536", b"hooks.example.org:-1",
    b"hooks.example.org:80:80", b"hooks.example.org:x", b"hooks.example.org:8\x000", b"[::1]", b"[::1]:80", b"[::1", b"::1", b"[x]", b"[::1%eth0]", b"hooks.example.org\x00", b"hooks.example.org\x0b", b"hooks\texample",
    b"hooks..example.org", b".hooks.example.org", b"hooks.example.org.", b"hooks.example.org..", b".", b"*", b"h\xc3\xbcks.example.org", b"hooks.example.org\xff", b"hooks_example", b"-hooks", b"hooks%2eexample.org",
    b"hooks\\example", b"<hooks>", b'"hooks"', b"hooks;example", b"a" * 64 + b".example.org", b"a." * 130, b"127.0.0.1", b"127.1", b"0x7f.1", b"2130706433", b"localhost@", b"hooks.example.org$", b"'hooks'", b"(hooks)", b"hooks\r",
]


def hosts():
    fields = [b"X-Case: TAG", LENGTH + b": 0"]
    for value in HOSTS:
        yield f"Host {value!r}", message(*fields, host=b"Host: " + value, body=NEXT)
    yield "no Host", message(*fields, host=None, body=NEXT)
    for other in (HOST, b"Host: other.example.org", b"Host:", b"host: hooks.example.org", b"HOST: x"):
        yield f"Host and {other!r}", message(*fields, other, body=NEXT)
        yield f"{other!r} and Host", message(*fields, host=other + b"\r\n" + HOST, body=NEXT)
    for name in (b"X-Forwarded-Host", b"X-Host", b"Forwarded", b"X-Original-URL", b"X-Rewrite-URL", b"X-HTTP-Method-Override", b"X_Forwarded_Host", b"X-Forwarded_For", b"X_Hookward_Verified", b"X-Hookward-Verified"):
        yield f"Host and {name.decode()}", message(*fields, name + b": host=other.example.org", body=NEXT)


def connections():
    """What ends, keeps or would change a connection."""
    options = [
        b"close", b"Close", b"close, keep-alive", b"keep-alive, close", b"keep-alive", b"close,", b",close", b'"close"', b"clos", b"close x", b"host", b"Content-Length", b"transfer-encoding", b"Transfer-Encoding, close",
        b"X-Forwarded-For", b"x-hookward-verified", b"Authorization", b"content-type", b"", b" ", b",,,", b"\x00", b"upgrade", b"te", b"Connection", b"keep-alive\x0b", b"X-" + b"a" * 3000, b"a," * 3000,
    ]
    for option in options:
        short = option if len(option) < 40 else option[:6] + b"..%d" % len(option)
        yield f"Connection {short!r}", message(length_of(b"abc"), b"Connection: " + option, body=b"abc" + NEXT)
    yield "Connection twice", message(length_of(b"abc"), b"Connection: keep-alive", b"Connection: close", body=b"abc" + NEXT)
    yield "Connection twice, reversed", message(length_of(b"abc"), b"Connection: close", b"Connection: keep-alive", body=b"abc" + NEXT)
    yield "Proxy-Connection", message(length_of(b"abc"), b"Proxy-Connection: close", body=b"abc" + NEXT)
    yield "Connection names the coding", message(CODING + b": chunked", b"Connection: " + CODING, body=LAST + HIDDEN)
    yield "Connection names the length", message(LENGTH + b": 3", b"Connection: " + LENGTH, body=b"abc" + HIDDEN)
    for protocol in (b"websocket", b"h2c", b"h2", b"TLS/1.2", b"HTTP/2.0", b"foo", b"", b"h2c, websocket"):
        fields = [b"Upgrade: " + protocol, b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
        yield f"Upgrade {protocol!r}", message(*fields, length_of(b"abc"), body=b"abc" + NEXT)
        yield f"Upgrade {protocol!r} and no length", message(*fields, line=b"GET /TAG/outer HTTP/1.1", body=HIDDEN)
        yield f"Upgrade {protocol!r} unconnected", message(fields[0], length_of(b"abc"), body=b"abc" + NEXT)
    yield "the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN
    yield "the preface of HTTP/2 after a request", message(LENGTH + b": 0", body=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN)
    yield "a PROXY line", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + message(LENGTH + b": 0", body=NEXT)
    yield "a TLS hello", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00" + HIDDEN


def expectations():
    for value in (
        b"100-continue", b"100-Continue", b"100-continue ", b"100-continue, 100-continue", b"100-continue;q=1", b"y 100-continue", b"100-continue\x00", b"200-ok", b"100", b"", b" ", b'"100-continue"', b"x=y", b"\r\n 100-continue",
        b"100-continue\r\nExpect: 100-continue", b"100-continue\r\nExpect: x",
    ):
        yield f"Expect {value!r} with a length", message(b"Expect: " + value, length_of(b"abc"), body=b"abc" + NEXT)
        yield f"Expect {value!r} and chunks", message(b"Expect: " + value, CODING + b": chunked", body=LAST + NEXT)
        yield f"Expect {value!r} and no body", message(b"Expect: " + value, line=b"GET /TAG/outer HTTP/1.1", body=HIDDEN)
        yield f"Expect {value!r} on HTTP/1.0", message(b"Expect: " + value, length_of(b"abc"), line=b"POST /TAG/outer HTTP/1.0", body=b"abc" + HIDDEN)


def fields():
    values = [b"\x00", b"\x01", b"\x08", b"\x0b", b"\x0c", b"\x1b[0m", b"\x7f", b"\x80", b"\xff", b"a\rb", b"a\r", b"\r", b"a\nb", b"a\r\nb", b"", b" ", b"a" * 9000, b"a" * 40000, b"\xc4\x8d\xc4\x8a", b"\\r\\n", b"%0d%0a"]
    for value in values:
        short = value if len(value) < 40 else b"a..%d" % len(value)
        yield f"value {short!r}", message(b"X-A: " + value, length_of(b"abc"), body=b"abc" + NEXT)
    for name in (b"X A", b"X\x00A", b"X\x7fA", b"X\xe9", b"X(A)", b"X/A", b'"X"', b"X@A", b"X[A]", b"X{A}", b"", b" ", b"X,A", b"X;A", b"X=A", b"X?A", b"X\\A", b"X" * 5000, b"!#$%&'*+-.^_`|~", b"X_A", b"Keep_Alive", b"Proxy_Connection"):
        short = name if len(name) < 40 else b"X..%d" % len(name)
        yield f"name {short!r}", message(name + b": 1", length_of(b"abc"), body=b"abc" + NEXT)
    yield "101 fields", message(*[b"X-%d: 1" % i for i in range(101)], length_of(b"abc"), body=b"abc" + NEXT)
    yield "600 fields", message(*[b"X-%d: 1" % i for i in range(600)], length_of(b"abc"), body=b"abc" + NEXT)
    for name in (b"TE: trailers", b"Trailer: X-Sig", b"Keep-Alive: timeout=5", b"Proxy-Authorization: Basic eA==", b"Max-Forwards: 0", b"Content-Encoding: gzip", b"Range: bytes=0-0", b"Content-Range: bytes 0-0/1"):
        yield name.decode(), message(name, length_of(b"abc"), body=b"abc" + NEXT)


def pipelines():
    body = message(length_of(b"abc"), body=b"abc")
    yield "one", body
    yield "two", body + NEXT
    yield "five", body + NEXT.replace(b"next", b"2") + NEXT.replace(b"next", b"3") + NEXT.replace(b"next", b"4") + NEXT
    yield "two chunked", chunked(b"3\r\nabc\r\n" + LAST) + NEXT
    yield "a bad one in the middle", body + message(CODING + b": x", line=b"POST /TAG/bad HTTP/1.1", body=LAST) + NEXT
    yield "one without Host in the middle", body + message(LENGTH + b": 0", line=b"POST /TAG/bad HTTP/1.1", host=None) + NEXT
    yield "an answer", body + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + NEXT
    yield "bytes too many", message(LENGTH + b": 2", body=b"abc" + NEXT)
    yield "a body that is a request", message(length_of(HIDDEN), body=HIDDEN + NEXT)
    yield "chunks that are a request", chunked(b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n" + LAST + NEXT)
    yield "a second head that does not end", body + message(line=b"POST /TAG/next HTTP/1.1")[:-2]
    yield "a second body that does not end", body + NEXT[:-1]


FAMILIES = [lengths, codings, length_and_coding, names, chunks, lines, request_lines, hosts, connections, expectations, fields, pipelines]


def cases():
    """Every case once: (name, bytes with its own mark)."""
    found = {}
    for family in FAMILIES:
        for name, raw in family():
            name = f"{family.__name__}: {name}"
            if raw not in found.values():
                assert name not in found, name
                found[name] = raw
    return [(name, f"t{index:04}z", raw.replace(b"TAG", b"t%04dz" % index)) for index, (name, raw) in enumerate(found.items())]
