"""What fedbench/flower uses of Flower beyond its public names, and what of it a flwr lacks.

It imports nothing of fedbench: where a name of Flower has moved, fedbench.flower cannot be
imported, and all names that moved are to be seen at once.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

FLOWER = Path(__file__).parents[2] / "fedbench" / "flower"
# module:name -> the arguments that it is given, or, of a message, the fields that are used.
USED = {
    "flwr.app:Message": "content dst_node_id message_type group_id ttl reply_to",
    "flwr.app:Context": "run_id node_id node_config state run_config",
    "flwr.app:Error": "code reason",
    "flwr.app.message:remove_content_from_message": "message",
    "flwr.cli.build:build_fab_from_disk": "app",
    "flwr.common.serde:fab_to_proto": "fab",
    "flwr.common.serde:message_from_proto": "message_proto",
    "flwr.common.serde:message_to_proto": "message",
    "flwr.common.serde:run_from_proto": "run_proto",
    "flwr.common.serde:user_config_to_proto": "user_config",
    "flwr.proto.control_pb2:ListRunsRequest": "run_id",
    "flwr.proto.control_pb2:StartRunRequest": "fab override_config",
    "flwr.proto.control_pb2:StopRunRequest": "run_id",
    "flwr.proto.fleet_pb2:PullMessagesRequest": "node",
    "flwr.proto.fleet_pb2:PullMessagesResponse": "messages_list message_object_trees",
    "flwr.proto.fleet_pb2:PushMessagesRequest":
        "node messages_list message_object_trees clientapp_runtime_list",
    "flwr.proto.fleet_pb2:PushMessagesResponse": "session_id objects_to_push",
    "flwr.proto.fleet_pb2:RegisterNodeFleetRequest": "public_key",
    "flwr.proto.fleet_pb2:UnregisterNodeFleetRequest": "node_id",
    "flwr.proto.message_pb2:Metadata": "run_id message_id reply_to_message_id src_node_id",
    "flwr.proto.message_pb2:ObjectTree": "object_id children",
    "flwr.proto.node_pb2:Node": "node_id",
    "flwr.proto.runtime_pb2:AcquireTaskRequest": "supported_task_types",
    "flwr.proto.runtime_pb2:AcquireTaskResponse": "token",
    "flwr.proto.runtime_pb2:PullAppMessagesRequest": "message_ids",
    "flwr.proto.runtime_pb2:PullAppMessagesResponse": "messages_list message_object_trees",
    "flwr.proto.runtime_pb2:PushAppMessagesRequest": "messages_list message_object_trees",
    "flwr.proto.runtime_pb2:PushAppMessagesResponse": "message_ids session_id",
    "flwr.proto.runtime_pb2:PushTaskOutputRequest": "sub_status details",
    "flwr.proto.task_pb2:Task": "run_id",
    "flwr.proto.run_pb2:GetRunRequest": "node run_id",
    "flwr.server.superlink.linkstate:LinkState.deactivate_node": "node_id",
    "flwr.server.superlink.linkstate:LinkState.get_node_info": "node_ids",
    "flwr.server.superlink.linkstate:LinkState.delete_messages": "message_ins_ids",
    "flwr.server.superlink.linkstate:LinkState.get_object": "run_id object_id",
    "flwr.server.superlink.linkstate:LinkState.store_object":
        "run_id session_id object_id object_content",
    "flwr.server.superlink.linkstate:LinkState.get_node_id_by_public_key": "public_key",
    "flwr.server.superlink.linkstate:LinkState.start_session": "run_id",
    "flwr.server.superlink.linkstate:LinkState.store_message_and_object_tree":
        "message object_tree session_id",
    "flwr.server.superlink.linkstate.utils:NODE_UNAVAILABLE_ERROR_REASON": "",
    "flwr.serverapp.strategy:FedAvg._construct_messages": "record node_ids message_type",
    "flwr.supercore.control.control_http_client:ControlHttpClient.from_server_address":
        "server_address insecure root_certificates interceptors",
    "flwr.supercore.control.control_http_client:ControlHttpClient.ListRuns": "",
    "flwr.supercore.control.control_http_client:ControlHttpClient.StartRun": "",
    "flwr.supercore.control.control_http_client:ControlHttpClient.StopRun": "",
    "flwr.supercore.date:datetime": "",  # by which its `now` goes
    "flwr.supercore.date:now": "",
    "flwr.superlink.routers.fleet.node_auth:now": "",
    "flwr.supercore.dependencies.task:authenticate_task": "request token state",
    "flwr.supercore.inflatable.inflatable_object:get_all_nested_objects": "obj",
    "flwr.supercore.inflatable.inflatable_object:get_object_tree": "obj",
    "flwr.supercore.inflatable.inflatable_object:get_object_head_values_from_object_content":
        "object_content",
    "flwr.supercore.inflatable.inflatable_object:get_object_id": "object_content",
    "flwr.supercore.inflatable.inflatable_utils:validate_object_content": "content",
    "flwr.supercore.inflatable.inflatable_utils:inflate_object_from_contents":
        "object_id object_contents objects",
    "flwr.supercore.inflatable.inflatable_utils:pull_objects":
        "object_ids pull_object_fn initial_backoff backoff_cap",
    "flwr.supercore.interceptors:RuntimeTokenHttpInterceptor": "token",
    "flwr.supercore.interceptors:RuntimeVersionHttpInterceptor": "component_name",
    "flwr.supercore.logger:mirror_output_to_queue": "log_queue",
    "flwr.supercore.object_store:ObjectStore.delete": "object_id",
    "flwr.supercore.primitives.asymmetric:public_key_to_bytes": "public_key",
    "flwr.supercore.primitives.asymmetric:sign_message": "private_key message",
    "flwr.supercore.runtime:RuntimeHttpClient.AcquireTask": "",
    "flwr.supercore.runtime:RuntimeHttpClient.PushTaskOutput": "",
    "flwr.supercore.runtime:RuntimeHttpClient.from_server_address":
        "server_address insecure root_certificates interceptors",
    "flwr.superlink.grid.http_grid:HttpGrid": "token",
    "flwr.superlink.main:create_app": "config superlink_lifespan_class",
    "flwr.superlink.routers.fleet.node_auth:authenticate_node": "request",
    "flwr.superlink.runtime:run_serverapp":
        "runtime_api_address log_queue token insecure parent_pid runtime_dependency_install",
    "flwr.superlink.servicer.fleet.fleet_handlers:get_run": "request state",
    "flwr.superlink.servicer.fleet.fleet_handlers:pull_messages": "request state store",
    "flwr.superlink.servicer.fleet.fleet_handlers:push_messages": "request state",
    "flwr.superlink.servicer.runtime.runtime_handlers:pull_messages": "request state task",
    "flwr.superlink.servicer.runtime.runtime_handlers:push_messages": "request state task",
    "flwr.supernode.fleet_http_client:FleetHttpClient.RegisterNode": "",
    "flwr.supernode.fleet_http_client:FleetHttpClient.UnregisterNode": "",
    "flwr.supernode.fleet_http_client:FleetHttpClient.from_server_address":
        "server_address insecure root_certificates interceptors",
    "flwr.supernode.fleet_http_client:HEARTBEAT_CALL_TIMEOUT": "",
    "flwr.supernode.fleet_http_connection:HEARTBEAT_DEFAULT_INTERVAL": "",
    "flwr.supernode.fleet_http_connection:http_request_response":
        "server_address insecure root_certificates authentication_keys max_wait_time",
    "flwr.supernode.node_auth_http_interceptor:NodeAuthHttpInterceptor": "private_key public_key",
}  # fmt: skip


def imported(folder: Path = FLOWER) -> dict[str, list[str]]:
    """`module:name` of Flower -> the files of the folder that import it."""
    names: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flwr"):
                for alias in node.names:
                    names.setdefault(f"{node.module}:{alias.name}", []).append(path.name)
    return names


def moved() -> list[str]:
    """What this flwr has not, a line for each name."""
    by_whom = imported()
    return [
        f"{name}: {lack} (fedbench/flower: {', '.join(by_whom.get(name, ['calls it']))})"
        for name in sorted({*by_whom, *USED})
        for lack in lacks(name, USED.get(name, "").split())
    ]


def lacks(name: str, parameters: list[str]) -> Iterator[str]:
    module, _, path = name.partition(":")
    try:
        item: Any = importlib.import_module(module)
        for part in path.split("."):
            item = _attribute(item, part)
    except ImportError as error:
        yield f"the module is gone ({error})"
    except AttributeError:
        yield "the name is gone"
    else:
        missing = [parameter for parameter in parameters if parameter not in _parameters(item)]
        if missing:
            yield f"it takes no {', '.join(missing)}"


def _attribute(item: Any, name: str) -> Any:
    """Return what `from item import name` would."""
    if inspect.ismodule(item) and not hasattr(item, name):
        with suppress(ImportError):
            return importlib.import_module(f"{item.__name__}.{name}")
    return getattr(item, name)


def _parameters(item: Any) -> set[str]:
    if hasattr(item, "DESCRIPTOR"):
        return set(item.DESCRIPTOR.fields_by_name)
    return set(inspect.signature(item).parameters)
