"""The interfaces of a process and its parts, and the event of a process that started."""

from zope.interface import Attribute, Interface, implementer
from zope.interface.interfaces import IObjectEvent, ObjectEvent


class IZMQProcess(Interface):
    """A process that answers messages which arrive on a 0MQ socket."""

    socket_type = Attribute('0MQ type of the response socket')
    auth_thread = Attribute('Authenticator of the running process, or None where nothing is enforced')
    context = Attribute('0MQ context of the running process')
    loop = Attribute("Tornado's IOLoop of the running process")
    bind_addr = Attribute('Address given to the constructor')
    rep_stream = Attribute('Stream of the response socket')
    handler = Attribute('Class of the message handler')
    passwords = Attribute('Mapping of user names to passwords, or None')
    clients = Attribute('List of the clients let in, or None')
    registry = Attribute('Pyramid registry, or None')

    def setup():
        """Create the context, the authenticator, the loop and the response stream."""

    def stream(sock_type, addr, bind, callback=None, subscribe=b''):
        """Create a socket of the given type with its stream; returns ``(stream, port)``."""

    def init_stream():
        """Connect the response stream to the message handler."""

    def start():
        """Start the process."""

    def run():
        """What the process does once it is started."""

    def stop():
        """End the process once the messages under way are answered."""

    def exit(num=None, frame=None):
        """End the process as a signal would."""


class IZMQMessageHandler(Interface):
    """What the messages of a stream are given to."""

    handler = Attribute("The delegate's class: its methods are the message types")


class IZMQDeclarations(Interface):
    """The processes that an application declares: a mapping of their names to their declarations."""


class IZMQProcessStartedEvent(IObjectEvent):
    """A process has started; notified inside that process."""


@implementer(IZMQProcessStartedEvent)
class ZMQProcessStartedEvent(ObjectEvent):
    """A process has started, which is the event's ``object``; notified inside that process."""


class IZMQProcessStoppingEvent(IObjectEvent):
    """A process has been asked to end, and answers the messages under way; notified inside that process."""


@implementer(IZMQProcessStoppingEvent)
class ZMQProcessStoppingEvent(ObjectEvent):
    """A process has been asked to end, which is the event's ``object``; notified inside that process."""
