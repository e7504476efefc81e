"""Configuration of an environment, from `simenv.toml`, SIMENV_* variables and options."""

from simenv.config.load import (
    convert as convert,
    import_folders as import_folders,
    last_config as last_config,
    load as load,
    read as read,
    write as write,
)
from simenv.config.model import (
    EVERYWHERE as EVERYWHERE,
    USER_RULE as USER_RULE,
    Config as Config,
    GatewaySettings as GatewaySettings,
    IdentitySettings as IdentitySettings,
    Launching as Launching,
    Limits as Limits,
    Policies as Policies,
    is_any_address as is_any_address,
    listen_parts as listen_parts,
)
from simenv.config.paths import (
    BROKER_PREFIX as BROKER_PREFIX,
    BROKERS as BROKERS,
    GATEWAY_FORMAT as GATEWAY_FORMAT,
    ConnectionFile as ConnectionFile,
    EnvironmentPaths as EnvironmentPaths,
    GatewayFile as GatewayFile,
    OwnerEndpoint as OwnerEndpoint,
    application as application,
    broker_base as broker_base,
    broker_folder as broker_folder,
    connection_file as connection_file,
    devices_folder as devices_folder,
    home_root as home_root,
    interpreter as interpreter,
    kernel_cache as kernel_cache,
    kernel_folder as kernel_folder,
    lasting_socket_folder as lasting_socket_folder,
    launch_agent as launch_agent,
    places as places,
    segment_folder as segment_folder,
    service_file as service_file,
    socket_base as socket_base,
    socket_folder as socket_folder,
    state_folder as state_folder,
)
from simenv.config.pools import (
    NAME_RULE as NAME_RULE,
    check_name as check_name,
    pool_text as pool_text,
    size as size,
)
