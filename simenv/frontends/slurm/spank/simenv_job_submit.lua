-- Licences of a job's --qpu, for job_submit.lua:
--
--     dofile("/etc/slurm/simenv_job_submit.lua")
--     function slurm_job_submit(job_desc, part_list, submit_uid)
--         return simenv_job_submit(job_desc)
--     end
--
-- The SPANK plugin sends the request as SIMENV_QPU=NAME[:COUNT][,...]; each NAME is a licence
-- of slurm.conf, of which there are as many as the pool has workers. So a job waits as PENDING
-- (Licenses) until its share is free.

local MARK = "SIMENV_QPU="

function simenv_job_submit(job_desc)
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
    -- Those that the user asked for of other things stay.
    for entry in (job_desc.licenses or ""):gmatch("[^,;]+") do
        local is_ours = false
        for name in request:gmatch("([%w_.-]+):?%d*") do
            is_ours = is_ours or entry == name or entry:sub(1, #name + 1) == name .. ":"
        end
        if not is_ours then
            licenses[#licenses + 1] = entry
        end
    end
    job_desc.licenses = table.concat(licenses, ",")
    return slurm.SUCCESS
end
