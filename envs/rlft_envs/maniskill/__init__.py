"""ManiSkill 3: environments in CPU or GPU physics, and SimplerEnv's WidowX tasks. Modules are imported lazily."""
