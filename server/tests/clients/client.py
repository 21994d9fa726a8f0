"""What a Python application sees through openfeature-sdk and openfeature-provider-ofrep.

python client.py URL KEY: prints {user: {flag: {value, reason, variant}}}; a failed check ends it with a traceback.
"""
import json
import sys

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

url, key = sys.argv[1:]
api.set_provider(OFREPProvider(url, headers_factory=lambda: {"X-API-Key": key}))
client = api.get_client()

found = {}
for number in range(20):
    context = EvaluationContext(f"user-{number}", {"country": "IE" if number % 2 else "DE"})
    details = {
        "welcome": client.get_boolean_details("welcome", False, context),
        "button": client.get_string_details("button", "none", context),
        "size": client.get_integer_details("size", -1, context),
        "pricing": client.get_object_details("pricing", {}, context),
        "irish": client.get_boolean_details("irish", False, context),
        "halted": client.get_boolean_details("halted", False, context),
    }
    for flag, it in details.items():
        assert it.error_code is None, f"{flag}: {it.error_message}"
    found[context.targeting_key] = {
        flag: {"value": it.value, "reason": it.reason, "variant": it.variant} for flag, it in details.items()
    }

user = EvaluationContext("u")
welcome = client.get_boolean_details("welcome", False, user)
assert welcome.flag_metadata["team"] == "web" and "nested" not in welcome.flag_metadata, welcome
assert isinstance(welcome.flag_metadata["configVersion"], int), welcome


def failed(flag, context, code):
    details = client.get_string_details(flag, "default", context)
    assert (details.value, str(details.error_code.value)) == ("default", code), details


failed("no-such-flag", user, "FLAG_NOT_FOUND")
failed("button", EvaluationContext(None, {"country": "IE"}), "TARGETING_KEY_MISSING")
failed("welcome", user, "TYPE_MISMATCH")
api.set_provider(OFREPProvider(url, headers_factory=lambda: {"X-API-Key": "ff_unknown"}))
failed("welcome", user, "GENERAL")

print(json.dumps(found))
