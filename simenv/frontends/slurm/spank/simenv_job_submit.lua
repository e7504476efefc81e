-- Licences of a job's --qpu, for job_submit.lua:
--
--     dofile("/etc/slurm/simenv_job_submit.lua")
--     function slurm_job_submit(job_desc, part_list, submit_uid)
--         return simenv_job_submit(job_desc)
--     end
--     function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
--         return simenv_job_modify(job_desc, job_rec)
--     end
--
-- The SPANK plugin sends the request as SIMENV_QPU=NAME[:COUNT][,...]; each NAME is a licence
-- of slurm.conf, of which there are as many as the pool has workers. So a job waits as PENDING
-- (Licenses) until its share is free. Nobody gets these licences in another way: they would be
-- missing for other jobs, and give no reservation.

local OPTION = "qpu" -- its name in plugstack.conf
local MARK = "SIMENV_QPU="
local POOLS = "# simenv pools:" -- in the file that `simenv slurm sync` writes
local FOLDER = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local FILE = FOLDER .. "simenv/simenv_licenses.conf"
-- Options that name licences, in any release of Slurm.
local FIELDS = { "licenses", "tres_per_job", "tres_per_node", "tres_per_socket", "tres_per_task" }

-- The names of the pools, as a set: before the first `simenv slurm sync`, which names them, all
-- licences of the file.
local function simenv_pools()
    local pools, listed, is_synced = {}, {}, false
    local file = io.open(FILE)
    if file == nil then
        return pools
    end
    for line in file:lines() do
        local start = line:lower():match("^%s*licenses%s*=()")
        if start then
            for name in line:sub(start):gsub(":%d+", ""):gmatch("[%w_.-]+") do
                listed[name] = true
            end
        elseif line:sub(1, #POOLS) == POOLS then
            is_synced = true
            for name in line:sub(#POOLS + 1):gmatch("%S+") do
                pools[name] = true
            end
        end
    end
    file:close()
    return is_synced and pools or listed
end

-- The entries of a list of licences or of TRES, as a set: "fez:2,matlab", "license/fez=2".
local function simenv_entries(text)
    local entries = {}
    for entry in (text or ""):gmatch("[^,;|%s]+") do
        entries[entry] = true
    end
    return entries
end

-- Refuse the licences of pools that are not among those that the job has. `say` shows a message.
local function simenv_refusal(job_desc, present, say)
    local pools, own = simenv_pools(), simenv_entries(present)
    for _, field in ipairs(FIELDS) do
        for entry in pairs(simenv_entries(job_desc[field])) do
            local name = entry:gsub("^license[/:]", ""):match("^[%w_.-]+")
            if name and pools[name] and not own[entry] then
                say("licences of the pool %s come with --%s=%s:COUNT alone", name, OPTION, name)
                return slurm.ESLURM_INVALID_LICENSES or slurm.ERROR
            end
        end
    end
    return slurm.SUCCESS
end

function simenv_job_modify(job_desc, job_rec)
    return simenv_refusal(job_desc, job_rec.licenses, slurm.log_info) -- log_user cannot be here
end

function simenv_job_submit(job_desc)
    local code = simenv_refusal(job_desc, nil, slurm.log_user)
    if code ~= slurm.SUCCESS then
        return code
    end
    local request = nil
    for k = 0, (job_desc.spank_job_env_size or 0) - 1 do
        local entry = job_desc.spank_job_env[k]
        if entry and entry:sub(1, #MARK) == MARK then
            request = entry:sub(#MARK + 1)
        end
    end
    if request == nil then
        return slurm.SUCCESS
    end
    local licenses = {}
    for name, count in request:gmatch("([%w_.-]+):?(%d*)") do
        licenses[#licenses + 1] = name .. ":" .. (count ~= "" and count or "1")
    end
    if job_desc.licenses and job_desc.licenses ~= "" then -- of other things
        licenses[#licenses + 1] = job_desc.licenses
    end
    job_desc.licenses = table.concat(licenses, ",")
    return slurm.SUCCESS
end
