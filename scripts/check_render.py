"""Render one image with SAPIEN: proves that its libraries load and that it accepts a Vulkan driver.

Prints one line; the exit status is 0, or 1 with the reason on stderr. Run it as a process of its own: a broken
driver may end the process instead of raising.
"""

import sys

SIDE = 32


def render_box() -> str:
    """Render a red box before the camera.

    Returns:
        the rendering device's name.

    Raises:
        ImportError: a shared library is missing.
        RuntimeError: there is no usable device, or the image does not show the box.
    """
    import sapien

    sapien.render.set_camera_shader_dir("minimal")
    scene = sapien.Scene()
    scene.set_ambient_light([1.0, 1.0, 1.0])
    builder = scene.create_actor_builder()
    builder.add_box_visual(half_size=[0.3] * 3, material=sapien.render.RenderMaterial(base_color=[1, 0, 0, 1]))
    builder.initial_pose = sapien.Pose([1, 0, 0])
    builder.build_kinematic()
    camera = scene.add_camera("check", SIDE, SIDE, fovy=1.0, near=0.01, far=10)
    scene.update_render()
    camera.take_picture()
    red, green, _, _ = camera.get_picture("Color")[SIDE // 2, SIDE // 2]
    if not red > 2 * green:
        raise RuntimeError(f"the image does not show what stands before the camera (red {red}, green {green})")
    return str(scene.render_system.device.name)


if __name__ == "__main__":
    try:
        print(f"rendering works on {render_box()}")
    except (ImportError, OSError, RuntimeError) as error:
        sys.exit(f"rendering does not work: {error}")
