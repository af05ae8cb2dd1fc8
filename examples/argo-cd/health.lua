-- The health of a resource of Tollgate, by its conditions.
local hs = {status = "Progressing", message = "Waiting for the gateway"}
local metadata = obj.metadata or {}
local status = obj.status or {}
local conditions = status.conditions
if conditions == nil then
  return hs
end
-- What is said of an earlier version is not said of this one.
local function current(condition)
  local observed = condition.observedGeneration or status.observedGeneration
  return observed == nil or metadata.generation == nil or observed >= metadata.generation
end
local found = {}
for _, condition in ipairs(conditions) do
  if not current(condition) then
    return hs
  end
  found[condition.type] = condition
end
for _, kind in ipairs({"Accepted", "ResolvedRefs"}) do
  local condition = found[kind]
  if condition ~= nil and condition.status == "False" then
    return {status = "Degraded", message = condition.message or condition.reason or kind}
  end
end
-- It waits for somebody's consent, and for nothing that the gateway could do.
local approved = found["Approved"]
if approved ~= nil and approved.status ~= "True" then
  return {status = "Suspended", message = approved.message or "Waiting for an approval"}
end
local programmed = found["Programmed"]
if programmed == nil or programmed.status == "Unknown" then
  return hs
end
if programmed.status == "False" then
  return {status = "Degraded", message = programmed.message or programmed.reason or "Programmed"}
end
return {status = "Healthy", message = programmed.message or "Served"}
