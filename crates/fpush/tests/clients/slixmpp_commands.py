"""Runs test-push and push-status as a user of slixmpp does: by nothing but its own plugins for commands and forms.

Usage: slixmpp_commands.py PORT USER PASSWORD COMPONENT

Writes one JSON object: what a person gets to see of each command, answer by answer.
"""

import asyncio
import json
import sys

from slixmpp import ClientXMPP

PORT, USER, PASSWORD, COMPONENT = sys.argv[1:]
WAIT = 60


def shown(iq):
    """What a client shows of an answer."""
    command = iq["command"]
    form = command["form"]
    fields = [
        {
            "var": var,
            "label": field["label"],
            "value": field["value"],
            "options": [[option["label"], option["value"]] for option in field["options"]],
        }
        for var, field in form.get_fields().items()
        if field["type"] != "hidden"
    ]
    return {
        "status": command["status"],
        "actions": sorted(command["actions"]),
        "notes": [text for _, text in command["notes"]],
        "title": form["title"],
        "instructions": form["instructions"],
        "fields": fields,
        "items": [dict(item) for item in form["items"]],
    }


class Person(ClientXMPP):
    def __init__(self):
        super().__init__(f"{USER}@localhost", PASSWORD)
        for plugin in ("xep_0004", "xep_0030", "xep_0050"):
            self.register_plugin(plugin)
        self["feature_mechanisms"].unencrypted_plain = True
        self.ready = asyncio.Event()
        self.add_event_handler("session_start", lambda _: self.ready.set())

    def dial(self):
        """To a server without TLS: the way to say so has changed between versions."""
        try:
            self.connect(("127.0.0.1", int(PORT)), disable_starttls=True)
        except TypeError:
            self.enable_starttls, self.enable_plaintext = False, True
            self.connect("127.0.0.1", int(PORT))

    async def run_command(self, node, fill):
        """Starts a command, fills in its form if there is one, and returns all answers."""
        answers, done = [], asyncio.get_running_loop().create_future()

        def answered(iq, session):
            answers.append(shown(iq))
            if iq["command"]["status"] != "executing":
                done.set_result(answers)
                return
            filled = self["xep_0004"].make_form(ftype="submit")
            for var, value in fill(answers[-1]).items():
                filled.add_field(var=var, value=value)
            session.update(payload=filled, next=answered)
            self["xep_0050"].complete_command(session)

        def failed(iq, _session):
            done.set_exception(RuntimeError(str(iq)))

        self["xep_0050"].start_command(COMPONENT, node, {"next": answered, "error": failed})
        return await asyncio.wait_for(done, WAIT)


def first_device(answer):
    """What is offered first, as a person chooses who has one phone."""
    [field] = [field for field in answer["fields"] if field["var"] == "device"]
    return {"device": field["options"][0][1]}


async def visit(person):
    person.dial()
    await asyncio.wait_for(person.ready.wait(), WAIT)
    found = await person["xep_0050"].get_commands(COMPONENT, timeout=WAIT)
    commands = {node: name for _, node, name in found["disco_items"]["items"]}
    test = await person.run_command("test-push", first_device)
    status = await person.run_command("push-status", lambda _: {})
    print(json.dumps({"commands": commands, "test": test, "status": status}))
    person.disconnect()


person = Person()
person.loop.run_until_complete(visit(person))
