"""What the gateways of the benchmark grant: all that the cases need, or one grant, or many grants for many callers."""

# Callers of so many teams; each team has a grant for the calls of the load and one for other paths and models.
CALLERS, TEAMS = 500, 32
LIMITS = "limits: [{requests: 100000000, per: hour, burst: 10000000}, {spend: 90000000 USD, per: month}]"


def grant(name, callers, allow):
    return f"""---
apiVersion: tollgate.dev/v1alpha1
kind: Grant
metadata: {{name: {name}}}
spec:
  callers: [{{spiffe: "spiffe://prod.acme/ns/{callers}"}}]
  destination: openai
  credential: openai-prod
  allow: {{{allow}}}
"""


def one():
    allow = "methods: [POST], paths: [/v1/chat/completions], models: [gpt-5-mini]"
    return f"{grant('checkout-openai', 'checkout/sa/*', allow)}  {LIMITS}\n"


def everything():
    bodies = "methods: [POST], paths: [/big, /big/json, /big/base64, /big/escapes, /big/percent, /upload]"
    messages = "methods: [GET], paths: [/ws], upgrades: [websocket]"
    return f"""---
apiVersion: tollgate.dev/v1alpha1
kind: Grant
metadata: {{name: checkout-passed}}
spec:
  callers: [{{spiffe: "spiffe://prod.acme/ns/checkout/sa/*"}}]
  destination: passed
  limits: [{{requests: 100000000, per: hour, burst: 10000000}}]
{one()}{grant("checkout-bodies", "checkout/sa/*", bodies)}{grant("checkout-messages", "checkout/sa/*", messages)}"""


def many():
    """Two grants for each team, whose callers `bench-upstream --pki 1` makes certificates for."""
    text = ""
    for team in range(TEAMS):
        chat = f"methods: [POST], paths: [/v1/chat/completions], models: [gpt-5-mini, of-team-{team}-*]"
        other = f"methods: [GET, POST], paths: [/v1/embeddings, /v1/responses/**, /v1/files/*/of-{team}], models: [text-embedding-3-*, gpt-5]"
        text += f"{grant(f'chat-{team}', f'team-{team}/sa/*', chat)}  {LIMITS}\n"
        text += f"{grant(f'other-{team}', f'team-{team}/**', other)}  {LIMITS}\n"
    return text
